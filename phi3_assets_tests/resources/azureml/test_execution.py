"""Steps as command jobs, through unmodified clients, against Azurite and the stand-in."""

import contextlib
import json
import threading
import time

import dagster as dg
import pytest

from phi3_assets.azure.blobs import remove_folder
from phi3_assets.core.errors import UserError
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.chosen_execution import ChosenExecution, chosen
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets_tests.resources.azureml.one_job import (
    REFUSED,
    blobs,
    ended,
    failure,
    run,
)
from phi3_assets_tests.resources.execution_contract import ExecutionContract

pytestmark = pytest.mark.azure


class TestAzureMLExecution(ExecutionContract):
    def forget(self, store, ref):
        remove_folder(store.container, f"phi3-assets/artefacts/{ref.kind}/{ref.identity}")

    def break_file(self, store, ref, path):
        blob = store.container.get_blob_client(f"phi3-assets/{store.attempt_path(ref)}/{path}")
        data = bytearray(blob.download_blob().readall())
        data[-1] ^= 1
        blob.upload_blob(bytes(data), overwrite=True)


def test_nothing_of_a_job_is_left_but_the_artefact_and_its_log(azure, execution, store):
    made, _ = run(execution, store)
    assert blobs(store, "jobs/", "checkpoints/") == []
    assert blobs(store, "logs/") == [f"logs/raw_dataset/{made.call.identity}.log"]


def test_whoever_is_killed_just_before_publishing_leaves_nothing_and_loses_nothing(azure, execution, store):
    """What were removed afterwards would stay for ever: nobody asks for the job of an artefact that there is."""
    azure.fault(method="PUT", host="blob", path="[0-9a-f]{64}/manifest.json", **{**REFUSED, "times": 1})
    _, result = run(execution, store)
    assert "'Storage Blob Data Contributor'" in failure(result).description
    assert blobs(store, "jobs/", "checkpoints/") == []
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert len(azure.jobs()) == 1
    assert blobs(store, "logs/") == [f"logs/raw_dataset/{made.call.identity}.log"]


def test_what_a_killed_process_had_not_removed_the_next_run_removes(azure, execution, store, home):
    (home / "datasets" / "codes.csv").write_text("Frage,Antwort\na,b\n")
    azure.fault(method="DELETE", host="blob", **REFUSED)
    run(execution, store)
    assert blobs(store, "jobs/") != []
    azure.clear()
    run(execution, store)
    assert len(azure.jobs()) == 2
    assert blobs(store, "jobs/") == []


def test_a_job_goes_on_and_is_adopted_though_its_compute_is_gone_by_now(azure, execution, store):
    """First while it waits for its node, then when it has ended."""
    refused = {"method": "GET", "host": "management", "path": "/jobs/", "kind": "forbidden", "times": -1}
    azure.hold("cpu-cluster")
    _, result = ended(azure, execution, store, lambda name: azure.fault(**refused), held=True)
    assert "access was refused" in failure(result).description
    azure.clear()
    azure.fault(method="GET", path="/computes/", status=404, times=-1)
    started = threading.Timer(1, azure.hold, ["cpu-cluster", False])
    started.start()
    made, result = run(execution, store)
    assert result.success, failure(result).description
    started.join()
    store.container.delete_blob(f"phi3-assets/artefacts/raw_dataset/{made.call.identity}/manifest.json")
    again, result = run(execution, BlobArtifactStore(home=store.home))
    assert result.success, failure(result).description
    assert (again.digest, len(azure.jobs())) == (made.digest, 1)


def test_the_jobs_page_is_in_the_run_from_the_first_second(azure, execution, store, instance):
    azure.hold("cpu-cluster")
    thread = threading.Thread(target=run, args=(execution, store, instance))
    thread.start()
    while not (records := instance.fetch_observations(dg.AssetKey("raw_dataset"), limit=1).records):
        time.sleep(0.05)
    url = records[0].asset_observation.metadata["AzureML studio"].value
    assert url.startswith("https://ml.azure.com/runs/raw-dataset-")
    azure.hold("cpu-cluster", held=False)
    thread.join()


# Where.


@pytest.mark.parametrize(
    ("settings", "arc", "told"),
    [
        ({"compute": "arc-cluster"}, True, "PHI3_AZURE_INSTANCE_TYPE is not set.*It has "),
        ({"compute": "arc-cluster", "instance_type": "huge"}, True, "has no such instance type. It has "),
        ({"compute": "cpu-cluster"}, True, "azure_arc needs an attached Kubernetes cluster"),
        ({"compute": "arc-cluster"}, False, "use azure_arc for it"),
        ({"compute": "gpu"}, False, "Compute gpu .*no such thing"),
        ({"tier": "low_priority"}, False, "but compute 'cpu-cluster' is dedicated"),
        ({"tier": "spot"}, False, "spot is for serverless"),
        ({"instance_count": 99}, False, "has at most 4 nodes. `az ml compute update"),
        ({"instance_type": "Standard_NC24"}, False, "the nodes of compute 'cpu-cluster' are"),
        ({"compute": ""}, False, "No compute is named"),
        ({"environment": "mine"}, False, "give name and version"),
        ({"environment": "mine:7"}, False, "Environment mine:7: there is no such thing"),
    ],
)
def test_a_compute_that_does_not_fit_is_refused_before_anything_is_paid(azure, execution, store, settings, arc, told):
    _, result = run(AzureMLExecution(poll_s=0.2, **settings), store, arc=arc)
    with pytest.raises(dg.Failure, match=f"(?s){told}"):
        raise failure_of(result)
    assert azure.jobs() == []


def failure_of(result):
    return dg.Failure(failure(result).description)


@pytest.mark.parametrize(
    ("settings", "arc", "sent"),
    [
        ({"compute": "serverless", "tier": "spot"}, False, {"queueSettings": {"jobTier": "Spot"}}),
        ({"compute": "arc-cluster", "instance_type": "gpu-a100"}, True, {"instanceType": "gpu-a100"}),
        ({"identity": "user"}, False, {"identityType": "UserIdentity"}),
        (
            {"client_id": "33333333-3333-4333-8333-333333333333"},
            False,
            {"clientId": "33333333-3333-4333-8333-333333333333"},
        ),
        ({"run_timeout_minutes": 90}, False, {"timeout": "PT1H30M"}),
    ],
)
def test_settings_are_in_the_body_that_is_sent(azure, execution, store, settings, arc, sent):
    _, result = run(AzureMLExecution(poll_s=0.2, **settings), store, arc=arc)
    assert result.success, failure(result).description
    (put,) = azure.traffic("PUT", host="management", path="/jobs/")
    body = json.dumps(put["request"])
    for name, value in sent.items():
        assert json.dumps({name: value})[1:-1] in body


def test_a_store_on_a_disk_cannot_be_read_by_a_job(azure, execution, home):
    _, result = run(execution, LocalArtifactStore(home=str(home)))
    assert "Set PHI3_STORE=azure_blob" in failure(result).description


@pytest.mark.parametrize(("where", "assets"), [("azureml", {}), ("local", {"raw_dataset": "azureml"})])
def test_the_launchpad_sends_a_step_to_the_cluster(azure, execution, store, where, assets):
    there = ChosenExecution(local=LocalExecution(), azureml=execution, where=where, assets=assets)
    made, result = run(there, store)
    assert result.success, failure(result).description
    assert made.ran["job"] == azure.jobs()[0]["name"]


class TestChoice:
    def test_the_environment_the_run_and_single_assets(self):
        env = {"PHI3_EXECUTION": "azureml", "PHI3_EXECUTION_EVAL_REPORT": "local"}
        assert chosen(env)["lora_adapter"] == "azureml"
        assert chosen(env)["eval_report"] == "local"
        assert chosen(env, "azure_arc")["lora_adapter"] == "azure_arc"
        assert chosen(env, assets={"lora_adapter": "local"})["lora_adapter"] == "local"
        assert set(chosen({}).values()) == {"local"}

    @pytest.mark.parametrize(
        ("env", "assets", "told"),
        [
            ({"PHI3_EXECUTION": "azure"}, {}, "choose one of local, azureml, azure_arc"),
            ({"PHI3_EXECUTION_LORA": "azureml"}, {}, "PHI3_EXECUTION_LORA names no asset. Did you mean"),
            ({}, {"lora": "azureml"}, "'lora' is no asset"),
        ],
    )
    def test_a_wrong_name_is_an_error_with_the_choices(self, env, assets, told):
        with pytest.raises(UserError, match=told), contextlib.nullcontext():
            chosen(env, assets=assets)
