"""What is measured of a model is judged where it stands; each check is seen to fail over the fault it is for.

merged, int4 and the bundle had no checks: "All checks passed" stood over a model that nobody had looked at.
"""

import json
import shutil

import dagster as dg
import pytest

from phi3_assets.checks import model as checks
from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.ops.planning import refuse_if_unfit
from phi3_assets.release import smoke_test
from phi3_assets.release.bundle import RELEASE
from phi3_assets.release.rules import judge_bundle
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest
from phi3_assets.resources.recipe import RecipeResource

# Check, its asset, the seeded fault, whether it holds back what is built on the asset.
SEEDED = [
    (checks.merged_is_base_plus_adapter, "merged_model", {"least_change_kept": 0.5}, True),
    (checks.merged_is_base_plus_adapter, "merged_model", {"least_change_kept": -0.0}, True),
    (checks.merged_is_base_plus_adapter, "merged_model", {"least_change_kept": float("nan")}, True),
    (checks.int4_runs, "onnx_int4_model", {"generated_tokens": 0}, True),
    (checks.int4_runs, "onnx_int4_model", {"eos_token_ids": []}, True),
    (
        checks.recovery_helped,
        "onnx_int4_model",
        {
            "recovery_steps": 9,
            "recovery_divergence_before": 0.1,
            "recovery_divergence_after": 0.2,
            "recovery_largest_scale_change": 0.1,
            "recovery_learnt_numbers": 1,
            "recovery_seconds": 1.0,
            "recovery_peak_memory_bytes": 1,
            "recovery_estimated_memory_bytes": 1,
            "recovery_resumed_from_step": 0,
        },
        False,
    ),
    (checks.smoke_test_passes, "release_bundle", {"smoke_faults": ["the answer does not end by itself"]}, True),
    (checks.smoke_test_passes, "release_bundle", {"smoke_questions": 0, "smoke_same_answers": 0}, False),
    (checks.answers_are_the_reports, "release_bundle", {"smoke_same_answers": 1}, False),
    (checks.answers_are_the_reports, "release_bundle", {"smoke_questions": 0, "smoke_same_answers": 0}, False),
]


def ask(check, asset, store) -> dg.AssetCheckResult:
    return check(store=store, recipe=RecipeResource(recipe="tiny-test"), **{asset: {"asset": asset}})


def newest(store, asset) -> ArtefactRef:
    ref = latest(store.ledger, "operations-desk", asset)
    assert ref is not None
    return ref


@pytest.mark.parametrize(
    ("check", "asset"),
    {(check, asset): None for check, asset, _, _ in SEEDED},
    ids=lambda one: getattr(one, "name", ""),
)
def test_what_is_well_made_passes(made_home, check, asset):
    result = ask(check, asset, LocalArtifactStore(home=str(made_home)))
    assert result.passed, result.description


@pytest.mark.parametrize(("check", "asset", "fault", "blocks"), SEEDED)
def test_a_seeded_fault_is_caught(copied_home, check, asset, fault, blocks):
    store = LocalArtifactStore(home=str(copied_home))
    ref = newest(store, asset)
    path = store.fetch(ref) / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"] |= fault
    path.write_text(json.dumps(manifest))
    store = LocalArtifactStore(home=str(copied_home))
    result = ask(check, asset, store)
    assert not result.passed
    assert (result.severity == dg.AssetCheckSeverity.ERROR) is blocks
    if blocks:  # materialising downstream alone runs no check of this asset
        with pytest.raises(UserError, match="is not to be built on"):
            refuse_if_unfit(store, ref, load_recipe("tiny-test"))
    else:
        refuse_if_unfit(store, ref, load_recipe("tiny-test"))


@pytest.fixture
def bundle(made_home, tmp_path):
    """A copy of the release bundle, and what was measured of it."""
    store = LocalArtifactStore(home=str(made_home))
    ref = newest(store, "release_bundle")
    manifest = store.find(ref.kind, ref.identity)
    assert manifest is not None
    return shutil.copytree(store.fetch(ref), tmp_path / "bundle"), manifest.metrics


def test_another_model_than_the_one_scored_is_caught(bundle):
    folder, metrics = bundle
    found = {one.rule: one.passed for one in judge_bundle(metrics, folder, load_recipe("tiny-test"))}
    assert found == {"smoke_test_passes": True, "bundle_is_what_was_scored": True}
    release = json.loads((folder / RELEASE).read_text())
    release["files"]["model/model.onnx"]["sha256"] = "0" * 64
    (folder / RELEASE).write_text(json.dumps(release))
    found = {one.rule: one.passed for one in judge_bundle(metrics, folder, load_recipe("tiny-test"))}
    assert found == {"smoke_test_passes": True, "bundle_is_what_was_scored": False}


def test_a_bundle_that_asks_otherwise_than_in_training_fails_its_smoke_test(bundle):
    folder, metrics = bundle
    assert metrics["smoke_questions"] == 3
    assert not any(one["faults"] for one in smoke_test.ask(folder))
    for template in folder.glob("model/chat_template*"):
        template.write_text("{{ 'Hello. ' }}" + template.read_text())
    told = {fault for one in smoke_test.ask(folder) for fault in one["faults"]}
    assert any("another prompt than in training" in fault for fault in told)
