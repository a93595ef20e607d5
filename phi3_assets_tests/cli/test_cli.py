"""`phi3` answers bad input with one sentence that says what, where and the way out, and leaves nothing half-made."""

import pytest

from phi3_assets.cli.options import parse_overrides
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import TINY, phi3


@pytest.fixture
def fails(phi3_here):
    def run(home, *arguments: str) -> str:
        said = phi3_here("run", *arguments, home=home, fails=True)
        assert "Traceback" not in said
        assert list(home.glob("work/*/*/staged-*")) == []
        assert list(home.glob("gen-model/*_*/*/manifest.json")) == []
        return said

    return run


def test_init_lays_out_the_seeds_folders(tmp_path):
    home = tmp_path / "new"
    done = phi3("init", home=home, env=clean_env())
    assert done.stdout.strip() == f"Laid out {home}."
    assert {path.name for path in home.iterdir()} >= {
        "datasets",
        "fine-tuning",
        "inferences",
        "model-cache",
        "gen-model",
        "setup",
    }
    (home / "datasets" / "operations_desk.csv").unlink()
    assert "left as it is" in phi3("init", home=home, env=clean_env()).stdout
    assert list((home / "datasets").iterdir()) == []


def test_missing_dataset_folder(home, fails):
    (home / "datasets" / "codes.csv").unlink()
    (home / "datasets").rmdir()
    assert f"Dataset folder {home / 'datasets'} does not exist. Create it" in fails(home, *TINY, "--to", "raw_dataset")


def test_empty_dataset_folder(home, fails):
    (home / "datasets" / "codes.csv").unlink()
    assert f"Dataset folder {home / 'datasets'} is empty. Put at least one file there." in fails(
        home, *TINY, "--to", "raw_dataset"
    )


def test_empty_file(home, fails):
    (home / "datasets" / "codes.csv").write_bytes(b"")
    message = fails(home, *TINY, "--to", "raw_dataset")
    assert "codes.csv" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "lora_rank=3"], "no recipe field 'lora_rank'. Did you mean 'lora_r'?"),
        (["--set", "lora_r"], "write FIELD=VALUE"),
        (["--set", "lora_r=two"], "lora_r: Input should be a valid integer; got 'two'"),
        (["--recipe", "smol-gpu"], "Did you mean 'smol-cpu'?"),
        (["--recipe", "none.yaml"], "No such file or directory: none.yaml"),
    ],
)
def test_wrong_recipe_is_refused_before_anything_starts(tmp_path, arguments, message, fails):
    home = tmp_path / "home"
    assert message in fails(home, *arguments)
    assert not home.exists()


def test_text_that_looks_like_a_number_needs_no_quotes():
    """`--set int4_budget=0.4` is in the documentation, passed the recipe, and ended in Dagster's traceback."""
    given = parse_overrides(["int4_budget=0.4", "product=2026", 'system_prompt="Be brief."', "base_model_revision="])
    assert given == {
        "int4_budget": "0.4",
        "product": "2026",
        "system_prompt": "Be brief.",
        "base_model_revision": "",
    }


def test_base_model_directory_without_safetensors(home, tmp_path, fails):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x02")
    message = fails(home, *TINY, "--to", "base_model", "--set", f"base_model={model}", "--set", "base_model_revision=")
    assert "safetensors" in message
    assert "pytorch_model.bin" in message


def test_base_model_directory_that_is_missing(home, tmp_path, fails):
    message = fails(
        home, *TINY, "--to", "base_model", "--set", f"base_model={tmp_path / 'none'}", "--set", "base_model_revision="
    )
    assert f"Base model directory {tmp_path / 'none'} does not exist" in message
