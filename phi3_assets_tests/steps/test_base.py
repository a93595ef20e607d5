"""Base models: what is fetched, what is refused, and that the same source gives the same bytes."""

import json
import shutil
from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.steps import BASE_MODEL
from phi3_assets_tests.steps.conftest import Made, RunStep


def test_random_model_is_the_same_bytes_each_time(tiny_base: Made, run_step: RunStep) -> None:
    again = run_step(BASE_MODEL)
    other_seed = run_step(BASE_MODEL, base_model_revision="1")
    assert _bytes(again.path) == _bytes(tiny_base.path)
    assert _bytes(other_seed.path)["model.safetensors"] != _bytes(tiny_base.path)["model.safetensors"]


def test_random_model_says_what_it_is(tiny_base: Made) -> None:
    assert tiny_base.metrics["architecture"] == "Phi3ForCausalLM"
    assert tiny_base.metrics["parameters"] == 106_816
    assert tiny_base.metrics["dtype"] == "float32"
    assert tiny_base.metrics["eos_token_ids"] == [0, 1, 3]  # as many as Phi-3-mini has


def test_random_tokenizer_encodes_any_text(tiny_base: Made) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base.path)
    text = "Grüße, 世界! \x00\t<b>&\n"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("<|end|>") == [3]


def test_local_directory_is_copied_without_foreign_code(
    tiny_base: Made, run_step: RunStep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base.path, mine)
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (mine / "evil.py").write_text("raise SystemExit('ran foreign code')")
    (mine / "LICENSE").write_text("\nMIT License\n")
    made = run_step(BASE_MODEL, {"base_model_directory": mine}, base_model="./mine", base_model_revision="")
    assert "auto_map" not in (made.path / "config.json").read_text()
    assert not (made.path / "evil.py").exists()
    assert made.metrics["licence"] == "MIT License"
    # A copy: what the user does to his file later does not reach the artefact.
    assert (made.path / "model.safetensors").stat().st_ino != (mine / "model.safetensors").stat().st_ino


def test_a_configuration_cannot_name_code(tiny_base: Made, run_step: RunStep, tmp_path: Path) -> None:
    """config.json could name a kernel of the hub, adapter_config.json another model: both are fetched and run."""
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base.path, mine)
    config = json.loads((mine / "config.json").read_text())
    evil = {"attn_implementation": "evil/kernel", "_experts_implementation": "evil/kernel", "auto_map": {"A": "evil.B"}}
    nested = {"custom_pipelines": {"evil": {}}, "deeper": [{"auto_map": "evil"}], "transformers_weights": "evil.bin"}
    (mine / "config.json").write_text(json.dumps({**config, **evil, "nested": nested}))
    generation = json.loads((mine / "generation_config.json").read_text())
    (mine / "generation_config.json").write_text(json.dumps({**generation, "custom_generate": "evil/repository"}))
    (mine / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "evil/model"}))
    (mine / ".hidden.json").write_text("{}")
    made = run_step(BASE_MODEL, {"base_model_directory": mine}, base_model="./mine", base_model_revision="")
    assert not [path.name for path in made.path.glob("*.json") if "evil" in path.read_text()]
    assert not (made.path / "adapter_config.json").exists()
    assert not (made.path / ".hidden.json").exists()
    assert json.loads((made.path / "config.json").read_text()) == {**config, "nested": {"deeper": [{}]}}


def test_words_of_the_vocabulary_are_no_keys(tiny_base: Made, run_step: RunStep, tmp_path: Path) -> None:
    """A vocabulary with the word "auto_map" lost it."""
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base.path, mine)
    (mine / "vocab.json").write_text('{"auto_map": 5}')
    made = run_step(BASE_MODEL, {"base_model_directory": mine}, base_model="./mine", base_model_revision="")
    assert (made.path / "vocab.json").read_text() == '{"auto_map": 5}'


def _link_out(directory: Path) -> None:
    secret = directory.parent / "secret"
    secret.write_text("hunter2")
    (directory / "LICENSE").symlink_to(secret)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_link_out, "LICENSE is a link that leads out of the folder"),
        (lambda d: _set(d, quantization_config={"quant_method": "gptq"}), r"the model is quantised \(gptq\)"),
        (lambda d: (d / "config.json").write_text("[" * 200_000), "config.json is no JSON.*nested too deeply"),
        (lambda d: (d / "config.json").write_text("[]"), "config.json is no object"),
        (lambda d: (d / "generation_config.json").write_text("{"), "generation_config.json is no JSON"),
        (lambda d: (d / "model.safetensors.index.json").write_text('["a"]'), "names no weights"),
        (lambda d: (d / "model.safetensors").rename(d / "pytorch_model.bin"), "pytorch_model.bin.*refused.*convert"),
        (lambda d: (d / "model.safetensors").unlink(), r"has no \*.safetensors.*save_pretrained"),
        (lambda d: (d / "config.json").unlink(), "no config.json"),
        (lambda d: (d / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda d: shutil.rmtree(d), "not a directory or is empty"),
        (
            lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}'),
            "not whole: model-2.safetensors",
        ),
    ],
)
def test_directory_that_is_no_model_is_refused(change, expected, tiny_base, run_step, tmp_path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_base.path, mine)
    change(mine)
    with pytest.raises(UserError, match=f"(?s){expected}"):
        run_step(BASE_MODEL, {"base_model_directory": mine}, base_model="./mine", base_model_revision="")


def test_unknown_random_model_names_the_nearest(run_step: RunStep) -> None:
    with pytest.raises(UserError, match="Did you mean 'phi3-tiny'"):
        run_step(BASE_MODEL, base_model="random:phi3-tinny")


@pytest.mark.parametrize("source", ["random:phi3.5-small", "./mine"])
def test_memory_and_disk_are_forecast(source: str, tiny_base: Made, run_step: RunStep) -> None:
    inputs = {"base_model_directory": tiny_base.path} if source == "./mine" else {}
    made = run_step(BASE_MODEL, inputs, base_model=source, base_model_revision="" if inputs else "0")
    peak, forecast = (made.metrics[name] for name in ("peak_memory_bytes", "estimated_memory_bytes"))
    assert peak / TOLERANCE <= forecast <= peak * TOLERANCE
    assert any(line.startswith("Estimate: ") and line.endswith("of disk") for line in made.log)


@pytest.mark.parametrize("source", ["random:phi3-mini-31-layers", "./mine"])
def test_too_little_disk_is_refused_beforehand(
    source: str, tiny_base: Made, run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    inputs = {"base_model_directory": tiny_base.path} if source == "./mine" else {}
    with pytest.raises(UserError, match=r"Fetching the base model needs about .* of disk, and .* has 0 MiB free"):
        run_step(BASE_MODEL, inputs, base_model=source, base_model_revision="" if inputs else "0")


def _set(directory: Path, **more: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def _bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}
