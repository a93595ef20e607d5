"""What the commands of `phi3` do with results, on a home that was really made."""

import json
import re
from pathlib import Path

import dagster as dg

from phi3_assets.chat.serving import LATEST, Which
from phi3_assets.cli.results import asked_of
from phi3_assets.core.ledger import product_key
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets_tests.tiny_graph import TINY

CONFIGS = Path(__file__).parents[1] / "olive" / "configs"


def test_chat_answers_one_question(made_home, phi3_here):
    said = phi3_here("chat", "What does code 7 mean?", "--max-new-tokens", "4", home=made_home)
    assert "tokens/s" in said
    (told,) = re.findall(r"Asking int4 of release (\w{16}) of operations-desk, the champion, recipe tiny-test\.", said)
    named = phi3_here("chat", "Hello?", "--max-new-tokens", "2", "--release", told[:6], home=made_home)
    assert f"release {told}" in named
    newest = phi3_here("chat", "Hello?", "--max-new-tokens", "2", "--latest", home=made_home)
    assert re.search(r"Asking int4 of onnx_int4_model \w{16} of operations-desk, made last, recipe tiny-test", newest)


def test_chat_with_a_release_that_there_is_not_is_refused(made_home, phi3_here):
    for more in ([], ["--web"]):
        refused = phi3_here("chat", *more, "--release", "ffff", home=made_home, fails=True)
        assert "'ffff' names no releases of this product. Known are: " in refused
    both = phi3_here("chat", "--latest", "--release", "ffff", home=made_home, fails=True)
    assert "--latest is what was made last, --release names one" in both


def test_chat_asks_a_model_as_it_was_trained(copied_home, phi3_here):
    """After a partial retrain with another system prompt, the old model was asked with the new prompt."""
    changed = [*TINY, "--set", "system_prompt=Be brief.", "--to", "formatted_corpus"]
    phi3_here("run", *changed, home=copied_home)
    for release in ("", LATEST):
        found = asked_of(copied_home, Which(release=release), "int4")
        assert found.system_prompt == ""
        assert found.directories.keys() >= {"base_model", "lora_adapter", "merged_model", "onnx_int4_model"}
    phi3_here("run", *changed[:-1], "lora_adapter", home=copied_home)
    assert asked_of(copied_home, Which(release=LATEST), "adapter").system_prompt == "Be brief."
    assert asked_of(copied_home, Which(), "adapter").system_prompt == ""


def test_chat_without_a_model_says_how_to_get_one(home, phi3_here):
    assert "materialise it first, with `phi3 run`" in phi3_here("chat", "Hello?", home=home, fails=True)


def test_bundle_is_handed_out_and_a_flipped_bit_is_seen(made_home, tmp_path, phi3_here):
    out = tmp_path / "bundle"
    phi3_here("bundle", "export", out, home=made_home)
    assert "is whole" in phi3_here("bundle", "verify", out)
    file = out / "model" / "model.onnx.data"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "model/model.onnx.data was changed" in phi3_here("bundle", "verify", out, fails=True)


def test_only_a_champion_is_handed_out(copied_home, tmp_path, phi3_here):
    """Not the newest release, which may be worse than it or rolled back from."""
    phi3_here("bundle", "export", tmp_path / "of-champion", home=copied_home)
    phi3_here("champion", "retire", "--reason", "wrong department", home=copied_home)
    refused = phi3_here("bundle", "export", tmp_path / "none", home=copied_home, fails=True)
    assert "operations-desk has no champion in this home yet" in refused
    assert not (tmp_path / "none").exists()


def test_a_person_s_decision_is_a_materialisation_of_champion(copied_home, phi3_here):
    """A rollback left no event: the UI went on to show a champion that was none."""
    phi3_here("champion", "retire", "--reason", "wrong department", home=copied_home)
    with dg.DagsterInstance.from_config(str(copied_home / ".dagster")) as instance:
        shown = instance.get_latest_materialization_event(dg.AssetKey("champion")).asset_materialization
    assert shown.metadata["action"].value == "retire"
    assert shown.metadata["reason"].value == "wrong department"
    assert phi3_here("champion", "history", home=copied_home).splitlines()[-1].endswith("wrong department")


def test_where_there_are_several_products_one_must_be_named(copied_home, phi3_here):
    LocalLedger(copied_home / "ledger").write(product_key("other", "champion.json"), b"null", None)
    said = phi3_here("champion", "show", home=copied_home, fails=True)
    assert "This home has several products; name one with --product: operations-desk, other." in said
    assert "since" in phi3_here("champion", "show", "--product", "operations-desk", home=copied_home)


def test_the_first_release_that_is_fit_is_champion(made_home, phi3_here):
    why = "Promoted: it is fit for release, and there is no champion yet."
    assert why in phi3_here("champion", "show", home=made_home)
    assert re.fullmatch(rf"  1 \S+ promote  [0-9a-f]{{16}} {why}\n", phi3_here("champion", "history", home=made_home))


def test_cookbook_configurations_come_in(tmp_path, phi3_here):
    out = tmp_path / "mine.yaml"
    command = ["config", "import", CONFIGS / "cookbook-lora.json", "--out", out]
    report = phi3_here(*command)
    assert "lora_alpha" in report
    assert "lora_r: 64" in out.read_text()
    assert "is not overwritten" in phi3_here(*command, fails=True)
    settings = tmp_path / "mine.azure.yaml"
    assert f"PHI3_EXECUTION=azureml PHI3_AZURE_CONFIG={settings} phi3 run --recipe {out}" in report
    assert "hf_token_secret: hf-token\n" in settings.read_text()
    again = ["config", "import", CONFIGS / "cookbook-lora.json", "--out", tmp_path / "other.yaml"]
    assert "is not overwritten" in phi3_here(*again, "--azure-out", settings, fails=True)
    assert not (tmp_path / "other.yaml").exists()


def test_an_imported_recipe_runs_on_data_of_its_own_or_not_at_all(copied_home, tmp_path, phi3_here):
    """A hub dataset was dropped, and the run trained on the sample in PHI3_HOME/datasets without a word."""
    out = tmp_path / "mine.yaml"
    config = {
        "input_model": {"type": "HfModel", "model_path": "random:phi3-tiny"},
        "data_configs": [{"name": "d", "load_dataset_config": {"data_name": "acme/desk-chats"}}],
        "passes": {"l": {"type": "LoRA", "train_data_config": "d", "training_args": {"max_steps": 1}}},
    }
    (tmp_path / "olive.json").write_text(json.dumps(config))
    report = phi3_here("config", "import", tmp_path / "olive.json", "--out", out)
    assert "To be filled in first: dataset_path: dataset acme/desk-chats of the hub must be pinned" in report
    run = ("run", "--recipe", out, "--to", "raw_dataset")
    refused = phi3_here(*run, home=copied_home, fails=True)
    assert "dataset_path: 'hf:acme/desk-chats@<commit>', what is meant in place of <commit>" in refused
    desk = tmp_path / "desk"
    desk.mkdir()
    rows = ({"Question": f"What is item {i}?", "Best Answer": f"Number {i}."} for i in range(40))
    (desk / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "40 rows read, 40 kept" in phi3_here(*run, "--set", f"dataset_path={desk}", home=copied_home)
    # It had the sample's product, and so its test set and its champion.
    assert "from a.jsonl (" in phi3_here("testset", "show", "--product", "mine", home=copied_home)
    assert "a.jsonl" not in phi3_here("testset", "show", "--product", "operations-desk", home=copied_home)
    assert "mine has no champion" in phi3_here("champion", "show", "--product", "mine", home=copied_home)


def test_a_training_leaves_its_olive_configuration(made_home):
    (config,) = (made_home / "fine-tuning").glob("*/olive-config.json")
    (adapter,) = (made_home / "gen-model" / "lora_adapter").glob("*/manifest.json")
    assert config.parent.name == adapter.parent.name
    (data,) = json.loads(config.read_text())["data_configs"]
    assert Path(data["load_dataset_config"]["params"]["path"]).exists()


def test_config_export_writes_what_a_recipe_would_run(copied_home, tmp_path, phi3_here):
    out = tmp_path / "olive"
    fields = ["--set", "method=dora", "--set", "lora_r=4"]
    said = phi3_here("config", "export", "--out", out, *TINY, *fields, home=copied_home)
    assert f"olive run --config {out / 'olive-config.json'}" in said
    adapter = json.loads((out / "olive-config.json").read_text())["passes"]["adapter"]
    assert (adapter["type"], adapter["r"]) == ("DoRA", 4)
    assert "is not overwritten" in phi3_here("config", "export", "--out", out, *TINY, home=copied_home, fails=True)


def test_an_adapter_of_ones_own_is_taken_and_the_run_ends_there(copied_home, tmp_path, phi3_here):
    (adapter,) = (copied_home / "gen-model" / "lora_adapter").glob("*/adapter_config.json")
    mine = adapter.parent.rename(tmp_path / "mine")
    run = ["run", *TINY, "--to", "lora_adapter"]
    said = phi3_here(*run, "--set", f"adapter_path={mine}", home=copied_home)
    assert "Smallest norm of" in said
    assert "merged_model" not in said
    assert f"lora_adapter: {copied_home}" in said.splitlines()[-1]
    missing = phi3_here(*run, "--set", f"adapter_path={tmp_path / 'none'}", home=copied_home, fails=True)
    assert f"Adapter directory {tmp_path / 'none'} does not exist" in missing
    assert "Did you mean 'lora_adapter'?" in phi3_here(
        "run", *TINY, "--to", "lora_adaptr", home=copied_home, fails=True
    )
