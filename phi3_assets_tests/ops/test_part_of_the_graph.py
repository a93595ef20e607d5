"""Asking for a part of the graph: what is not in the run follows from the recipe, and must be fit to be built on."""

import time

import dagster as dg
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import ArtefactRef, read_manifest
from phi3_assets.definitions import build_defs
from phi3_assets.resources.lineage import lineage
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest, save_latest
from phi3_assets.steps import STEPS
from phi3_assets_tests.evaluation.gated import publish

PRODUCT = "operations-desk"


@pytest.fixture
def alone(copied_home, shared_execution, monkeypatch):
    """Materialises some assets of `copied_home` and no others; returns why it failed, or ""."""
    monkeypatch.setenv("PHI3_HOME", str(copied_home))

    def materialise(*names: str, **recipe) -> str:
        with dg.DagsterInstance.from_config(str(copied_home / ".dagster")) as instance:
            result = (
                build_defs()
                .resolve_job_def("retrain")
                .execute_in_process(
                    instance=instance,
                    asset_selection=[dg.AssetKey(name) for name in names],
                    run_config={"resources": {"recipe": {"config": {"recipe": "tiny-test", **recipe}}}},
                    raise_on_error=False,
                )
            )
            failures = [
                event.step_failure_data.user_failure_data for event in result.all_events if event.is_step_failure
            ]
            return " ".join(failure.description for failure in failures if failure)

    return materialise


def store_of(home) -> LocalArtifactStore:
    return LocalArtifactStore(home=str(home))


def test_what_does_not_stand_for_this_recipe_is_named(alone, copied_home):
    """`latest` of the upstream was taken, whatever recipe had made it: a model was scored that another recipe made."""
    before = latest(store_of(copied_home).ledger, PRODUCT, "merged_model")
    said = alone("merged_model", lora_r=4)
    assert "lora_adapter does not stand as this recipe and these files call for it" in said
    assert "Materialise lora_adapter too" in said
    assert latest(store_of(copied_home).ledger, PRODUCT, "merged_model") == before


def test_one_asset_alone_uses_what_its_recipe_calls_for(alone, copied_home):
    assert alone("formatted_corpus", system_prompt="Be brief.") == ""
    assert alone("lora_adapter") == ""  # of the first corpus, not of the one that was made last
    store = store_of(copied_home)
    adapter = latest(store.ledger, PRODUCT, "lora_adapter")
    corpus = store.find(adapter.kind, adapter.identity).made_from["formatted_corpus"]
    assert store.find(corpus.kind, corpus.identity).call.params["system_prompt"] == ""


def test_a_model_that_was_never_scored_is_not_bundled(alone, copied_home):
    """It was promoted on another model's scores: `method=none` up to onnx_int4_model, then release_bundle alone."""
    made = alone("lora_adapter", "merged_model", "onnx_int4_model", method="none")
    assert made == ""
    said = alone("release_bundle", "champion", method="none")
    assert "eval_report does not stand as this recipe and these files call for it" in said
    releases = list((copied_home / "gen-model" / "release_bundle").glob("*/manifest.json"))
    assert len(releases) == 1
    assert alone("release_bundle") == ""  # of the recipe that was scored
    report = read_manifest(releases[0].parent).made_from["eval_report"]
    assert (
        read_manifest(releases[0].parent).made_from["onnx_int4_model"]
        == (store_of(copied_home).find(report.kind, report.identity).made_from["onnx_int4_model"])
    )


def test_a_blocking_check_cannot_be_bypassed_by_materialising_downstream_alone(alone, copied_home):
    """A corpus over 28 % defective rows was promoted that way."""
    with (copied_home / "datasets" / "codes.csv").open("a", encoding="utf-8") as file:
        file.writelines(f"What does code {number} mean?,\n" for number in range(100, 120))
    alone("raw_dataset")
    raw = latest(store_of(copied_home).ledger, PRODUCT, "raw_dataset")
    for _ in range(2):
        said = alone("formatted_corpus")
        assert f"raw_dataset {raw.identity[:16]} is not to be built on. every_row_is_accounted_for: " in said
        assert "are defective" in said
    # The limit is asked for when it is built on, not when it was made.
    assert alone("formatted_corpus", max_defective_share=0.5) == ""
    assert "every_row_is_accounted_for" in alone("lora_adapter")


def test_a_refusal_names_the_page_that_shows_it(alone, copied_home):
    report = latest(store_of(copied_home).ledger, PRODUCT, "eval_report")
    said = alone("release_bundle", gate_min_items=1000)
    assert f"eval_report {report.identity[:16]} is not to be built on. test_set_is_large_enough: " in said
    assert f"/report/{report.identity} shows it." in said


def test_an_older_run_that_ends_last_does_not_point_back(copied_home):
    """The pointer said what had ended last, not what had been asked for last."""
    ledger = store_of(copied_home).ledger
    newer = {"kind": "base_model", "identity": "b" * 64, "digest": "d" * 64, "product": "p", "planned": 20.0}
    save_latest(ledger, "base_model", newer)
    save_latest(ledger, "base_model", {**newer, "identity": "a" * 64, "planned": 10.0})
    assert latest(ledger, "p", "base_model").identity == "b" * 64
    save_latest(ledger, "base_model", {**newer, "identity": "c" * 64, "planned": 30.0})
    assert latest(ledger, "p", "base_model").identity == "c" * 64
    assert latest(ledger, "q", "base_model") is None


def test_a_record_of_a_clock_that_was_set_back_holds_nothing_up(tmp_path):
    """After the clock had been set back by three days, no run of three days was the latest, and none was shown."""
    ledger = LocalLedger(tmp_path)
    record = {"kind": "base_model", "identity": "b" * 64, "digest": "d" * 64, "product": "p", "planned": time.time()}
    save_latest(ledger, "base_model", {**record, "planned": record["planned"] + 3 * 86400})
    save_latest(ledger, "base_model", {**record, "identity": "c" * 64})
    assert latest(ledger, "p", "base_model").identity == "c" * 64


def test_lineage_is_read_from_manifests(made_home):
    """It was guessed by digest from what was latest, and lost when something was made over."""
    store = store_of(made_home)
    release = latest(store.ledger, PRODUCT, "release_bundle")
    assert lineage(store, release).keys() == STEPS.keys()


def test_artefacts_of_two_lineages_are_not_mixed(store):
    one, other = (publish(store, "base_model", {"a": text}, text) for text in ("one", "other"))
    adapter = publish(store, "lora_adapter", {"a": "x"}, made_from={"base_model": one})
    merged = publish(store, "merged_model", {"a": "y"}, made_from={"base_model": other, "lora_adapter": adapter})
    with pytest.raises(UserError, match=r"merged_model \w{16} was made of base_model \w{16}, but lora_adapter"):
        lineage(store, merged)
    # The same content is the same thing, whatever it was made of.
    same = ArtefactRef("base_model", "f" * 64, one.digest)
    again = publish(store, "merged_model", {"a": "z"}, "z", made_from={"base_model": same, "lora_adapter": adapter})
    assert lineage(store, again)["lora_adapter"] == adapter
