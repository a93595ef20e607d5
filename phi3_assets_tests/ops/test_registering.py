"""A champion is registered as a version of a model, once, with what it is made of; and champion it is in any case."""

import json
from dataclasses import asdict

import dagster as dg
import pytest

from phi3_assets.assets.evaluation import champion
from phi3_assets.azure.clients import clients_of
from phi3_assets.cli.results import change_champion
from phi3_assets.core.errors import UserError
from phi3_assets.core.files import FileEntry
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import digest_of
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.ops.registering import refuse_unregistrable
from phi3_assets.release.champion import Champion
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets.resources.pointers import PointerIOManager
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets_tests.evaluation.gated import publish, publish_report
from phi3_assets_tests.evaluation.test_gate import make

MODEL = "desk-model"
PRODUCT = "operations-desk"


def test_a_store_on_a_disk_registers_nothing_and_says_so_before_anything_is_made(store):
    with pytest.raises(UserError, match=r"register_model 'desk-model': .* Set PHI3_STORE=azure_blob, or leave"):
        refuse_unregistrable(load_recipe("smol-cpu", {"register_model": MODEL}), store)
    refuse_unregistrable(load_recipe("smol-cpu"), store)


@pytest.fixture
def blob_store(azure, monkeypatch, home):
    azure.apply(monkeypatch)
    monkeypatch.setenv("PHI3_STORE", "azure_blob")
    return BlobArtifactStore(home=str(home))


@pytest.fixture
def release(blob_store):
    report = publish_report(blob_store, *make(), "first")
    model = FileEntry(bytes=1, sha256="0" * 64)
    digest = digest_of({"model.onnx": model})
    said = {"format": 1, "files": {"model/model.onnx": asdict(model)}, "made_of": {"onnx_int4_model": digest}}
    measured = {"bytes": 1, "files": 1, "digest": digest, "licence": "", "base_model": "a"}
    measured |= {"smoke_questions": 1, "smoke_faults": [], "smoke_same_answers": 1}
    files = {"release.json": json.dumps(said)}
    return publish(blob_store, "release_bundle", files, "first", made_from={"eval_report": report}, **measured)


def crown(store, release, **recipe):
    """Materialise the real asset champion after this release."""

    @dg.asset(name="release_bundle")
    def release_bundle():
        return {**release.to_dict(), "product": PRODUCT, "planned": 0.0}

    return dg.materialize(
        [release_bundle, champion],
        resources={
            "store": store,
            "recipe": RecipeResource(recipe="smol-cpu", **recipe),
            "execution": LocalExecution(),
            "io_manager": PointerIOManager(store=store),
        },
        raise_on_error=False,
    )


def versions(store):
    return list(clients_of(store.settings).ml.models.list(name=MODEL))


@pytest.mark.azure
def test_a_promoted_release_is_registered_once(azure, blob_store, release):
    first = crown(blob_store, release, register_model=MODEL)
    assert first.success
    (made,) = first.asset_materializations_for_node("champion")
    name = f"{MODEL}:{release.identity[:SHORT]}"
    assert made.metadata["registered as"].value == name
    puts = azure.traffic("PUT", path=f"/models/{MODEL}/")
    assert [one["status"] for one in puts] == [201]
    body = json.loads(puts[0]["request"]) if isinstance(puts[0]["request"], str) else puts[0]["request"]
    tags = body["properties"]["tags"]
    assert tags["phi3/release"] == release.identity
    assert tags["phi3/digest"] == release.digest
    assert tags["phi3/product"] == PRODUCT
    assert tags["phi3/made_of/release_bundle"] == release.identity
    assert len(tags["phi3/made_of/eval_report"]) == 64
    assert float(tags["phi3/int4/nll"]) > 0
    assert body["properties"]["modelUri"].endswith(f"/paths/phi3-assets/{blob_store.attempt_path(release)}/")
    again = crown(blob_store, release, register_model=MODEL)
    assert again.success
    (reused,) = again.asset_materializations_for_node("champion")
    assert reused.metadata["registered as"].value == name
    assert len(versions(blob_store)) == 1
    assert len(azure.traffic("PUT", path=f"/models/{MODEL}/")) == 1


@pytest.mark.azure
def test_nothing_is_registered_unasked(azure, blob_store, release):
    assert crown(blob_store, release).success
    assert azure.traffic(path="/models/") == []


@pytest.mark.azure
def test_a_champion_that_cannot_be_registered_is_champion_and_the_op_fails_with_the_reason(azure, blob_store, release):
    azure.fault(method="PUT", path="/models/", kind="forbidden", times=-1)
    result = crown(blob_store, release, register_model=MODEL)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert failed.step_key == "champion"
    failure = failed.event_specific_data.user_failure_data
    assert "needs the role 'AzureML Data Scientist' on the workspace" in failure.description
    # It is materialised all the same, for champion it is.
    assert len(result.asset_materializations_for_node("champion")) == 1
    assert Champion(blob_store.ledger, PRODUCT).present().release == release
    azure.clear()
    mended = crown(blob_store, release, register_model=MODEL)
    assert mended.success
    assert len(versions(blob_store)) == 1
    assert [entry.action for entry in Champion(blob_store.ledger, PRODUCT).history()] == ["promote"]


@pytest.mark.azure
def test_a_lost_answer_registers_no_second_version(azure, blob_store, release):
    azure.fault(method="PUT", path="/models/", kind="lost")
    assert crown(blob_store, release, register_model=MODEL).success
    assert len(versions(blob_store)) == 1


@pytest.mark.azure
def test_a_version_of_somebody_else_is_not_taken_for_ours(blob_store, release):
    assert crown(blob_store, release, register_model=MODEL).success
    models = clients_of(blob_store.settings).ml.models
    theirs = models.get(MODEL, release.identity[:SHORT])
    theirs.tags = {"phi3/release": "0" * 64}
    models.create_or_update(theirs)
    result = crown(blob_store, release, register_model=MODEL)
    assert not result.success
    (failed,) = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    assert "`az ml model update --name desk-model" in failed.event_specific_data.user_failure_data.description


@pytest.mark.azure
def test_approval_by_a_person_registers_what_the_recipe_wanted(azure, blob_store, release, home, monkeypatch, capsys):
    waiting = crown(blob_store, release, register_model=MODEL, promotion="approval")
    assert waiting.success
    assert azure.traffic(path="/models/") == []
    monkeypatch.setenv("DAGSTER_HOME", str(home / ".dagster"))
    change_champion(home, PRODUCT, lambda found, check: found.approve("", "looked at it", check=check))
    assert f"Registered as model {MODEL}:{release.identity[:SHORT]}." in capsys.readouterr().out
    assert len(versions(blob_store)) == 1
