"""What the end of a job means, and what hinders it."""

import threading
import time

import pytest

from phi3_assets.azure.blobs import remove_folder
from phi3_assets.azure.clients import Clients, clients_of
from phi3_assets.azure.history import log_of
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.azureml_job import job_name
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets_tests.conftest import raw_dataset_call
from phi3_assets_tests.resources.azureml.one_job import (
    REFUSED,
    SOON,
    address_of,
    ended,
    failure,
    first_job,
    foreign_job,
    run,
)
from phi3_assets_tests.resources.execution_contract import ExecutionContract, base_model_call

pytestmark = pytest.mark.azure


def test_a_job_that_leaves_nothing_is_a_failure_though_it_ended_well(azure, execution, store):
    """dagster-azure's client materialises it."""
    call, _ = raw_dataset_call(store)
    foreign_job(store, job_name(call, address_of(store), 1), "sleep 2; echo nothing done")
    _, result = run(execution, store)
    assert "ended well, but left no whole artefact" in failure(result).description
    assert "nothing done" in failure(result).metadata["end of log"].value
    assert store.find(call.step, call.identity) is None


def test_a_queue_that_never_moves_is_left(azure, home, store):
    azure.hold("cpu-cluster")
    _, result = run(AzureMLExecution(poll_s=0.2, queue_timeout_minutes=0.02), store)
    assert "PHI3_AZURE_QUEUE_TIMEOUT_MINUTES" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]


@pytest.mark.parametrize("status", ["NotResponding", "Paused"])
def test_a_node_that_answers_no_more_is_given_up_and_may_be_tried_again(azure, home, store, status):
    azure.hold("cpu-cluster")
    execution = AzureMLExecution(poll_s=0.2, grace_minutes=0.02)

    def no_answer():
        name = first_job(azure)
        azure.show(name, status)
        while "CancelRequested" not in azure.job(name)["history"]:
            time.sleep(0.05)
        azure.show(name, None)

    thread = threading.Thread(target=no_answer)
    thread.start()
    _, result = run(execution, store)
    thread.join()
    assert f"it had been {status} for" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True


def test_nodes_that_were_taken_away_are_a_reason_to_try_again(azure, execution, store):
    _, result = ended(azure, execution, store, azure.doom)
    assert "pre-empted" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True
    made, again = run(execution, store)
    assert again.success
    assert [job["name"] for job in azure.jobs()] == [job_name(made.call, address_of(store), n) for n in (1, 2)]


@pytest.fixture
def impatient(monkeypatch):
    """Whatever fails is tried again only where it is waited for."""
    monkeypatch.setattr("phi3_assets.azure.errors.PAUSES_S", ())


HISTORY = {"method": "POST", "path": "rundata"}
AWAY = {"status": 503, "headers": SOON}


def test_whether_nodes_were_taken_away_is_asked_until_it_is_known(azure, execution, store, impatient):
    azure.fault(**HISTORY, **AWAY, times=6)  # for longer than the client itself tries again
    _, result = ended(azure, execution, store, azure.doom)
    assert "pre-empted" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True
    assert [fault["used"] for fault in azure.faults()] == [6]


@pytest.mark.parametrize(
    ("fault", "told", "transient"),
    [(AWAY, "Whether its nodes were taken away is not known: ", True), ({"status": 403}, "cannot be read: ", False)],
)
def test_a_reason_that_cannot_be_had_is_said(azure, home, store, impatient, fault, told, transient):
    azure.fault(**HISTORY, **fault, times=-1)
    _, result = ended(azure, AzureMLExecution(poll_s=0.2, grace_minutes=0.03), store, azure.doom)
    assert told in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is transient


def test_what_the_service_says_is_told(azure, execution, store):
    def doom(name):
        azure.warn(name, "The disk of the node is full.")
        azure.doom(name, code="UserError", message="Error Code: ScriptExecution.StreamAccess.Authentication")

    _, result = ended(azure, execution, store, doom)
    assert "ScriptExecution.StreamAccess.Authentication" in failure(result).description
    assert "The disk of the node is full." in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False


def test_a_job_that_is_killed_most_likely_lacked_memory(azure, execution, store):
    call, _ = raw_dataset_call(store)
    foreign_job(store, job_name(call, address_of(store), 1), "echo last words; sleep 2; kill -9 $$")
    _, result = run(execution, store)
    assert "last words" in failure(result).metadata["end of log"].value
    assert "was killed, which is what happens when memory runs out" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False


def test_who_cancels_it_in_the_workspace_means_it(azure, execution, store):
    _, result = ended(azure, execution, store, lambda name: clients_of(store.settings).ml.jobs.begin_cancel(name))
    assert "was cancelled, by its time limit or by somebody in the workspace" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False


def test_a_cancellation_that_hangs_is_said_to_cost_money(azure, home, store):
    azure.hold("cpu-cluster")
    azure.hang_cancels()
    _, result = run(AzureMLExecution(poll_s=0.2, queue_timeout_minutes=0.01, grace_minutes=0.02), store)
    assert "it may cost money. Look at https://ml.azure.com/runs/" in failure(result).description


# What hinders a job's beginning or end, and must not change what becomes of the step.

HINDRANCES = {
    "log": {"method": "(GET|HEAD)", "host": "blob", "path": "ExperimentRun", **REFUSED},
    "datastore of the logs": {"method": "GET", "path": "datastores/workspaceartifactstore", "status": 404, "times": -1},
    "history": {"method": "POST", "path": "rundata", "status": 404, "times": -1},
    "removing": {"method": "DELETE", "host": "blob", **REFUSED},
}


@pytest.mark.parametrize("fault", HINDRANCES.values(), ids=list(HINDRANCES))
def test_what_is_made_is_made_though_its_log_or_its_leavings_are_out_of_reach(azure, execution, store, fault):
    azure.fault(**fault)
    made, result = run(execution, store)
    assert result.success, failure(result).description
    store.verify(made.ref)


@pytest.mark.parametrize("fault", HINDRANCES.values(), ids=list(HINDRANCES))
def test_the_workers_reason_is_told_though_the_services_is_out_of_reach(azure, execution, store, home, fault):
    (home / "datasets" / "codes.csv").write_text("Frage,Antwort\na,b\n")
    azure.fault(**fault)
    _, result = run(execution, store)
    assert "question_column" in failure(result).description


def test_logs_stand_in_the_workspaces_own_account_wherever_artefacts_do(azure, execution, store):
    from azure.ai.ml.entities import AzureBlobDatastore

    foreign_job(store, "a-job", "echo something said")
    azure.wait_for("a-job", "Completed")
    clients = Clients(store.settings)
    clients.datastore = AzureBlobDatastore(name="elsewhere", account_name="another", container_name="artefacts")
    assert clients.account_url == "https://another.blob.core.windows.net"
    assert "something said" in log_of(clients, "a-job")


def test_a_store_that_takes_no_job_file_says_which_role_is_missing(azure, execution, store):
    azure.fault(method="PUT", host="blob", path="job.json", **REFUSED)
    _, result = run(execution, store)
    assert "'Storage Blob Data Contributor'" in failure(result).description
    assert azure.jobs() == []


def test_the_users_files_are_uploaded_again_when_somebody_removed_them(azure, execution, store):
    made, _ = run(execution, store)
    remove_folder(store.container, f"phi3-assets/files/{made.call.inputs['datasets']}")
    remove_folder(store.container, f"phi3-assets/artefacts/raw_dataset/{made.call.identity}")
    again, result = run(execution, store)
    assert result.success, failure(result).description
    assert again.digest == made.digest


def test_an_upload_of_the_service_that_was_cut_is_not_adopted_for_ever(azure, execution, store):
    """Manifest first, and not all of the rest: the service's order is its own."""
    made, _ = run(execution, store)
    folder = f"phi3-assets/artefacts/raw_dataset/{made.call.identity}"
    store.container.delete_blob(f"phi3-assets/{store.attempt_path(made.ref)}/{min(made.files)}")
    store.container.delete_blob(f"{folder}/manifest.json")
    _, result = run(execution, BlobArtifactStore(home=store.home))
    assert "ended well, but left no whole artefact" in failure(result).description
    again, result = run(execution, BlobArtifactStore(home=store.home))
    assert result.success, failure(result).description
    assert len(azure.jobs()) == 2
    BlobArtifactStore(home=store.home).verify(again.ref)


def test_a_secret_that_is_not_there_is_the_reason_that_is_told(azure, execution, store):
    there = AzureMLExecution(poll_s=0.3, hf_token_secret="nosuch")
    _, result = ExecutionContract().run(there, store, base_model_call(), {})
    assert "az keyvault secret set --vault-name" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False


def test_who_may_not_cancel_is_told_so_at_once(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="POST", path="/cancel", kind="forbidden", times=-1)
    began = time.monotonic()
    _, result = run(AzureMLExecution(poll_s=0.2, queue_timeout_minutes=0.01, grace_minutes=5), store)
    assert "which goes on and costs money: access was refused" in failure(result).description
    assert time.monotonic() - began < 30


def test_somebody_elses_cancellation_that_hangs_is_not_waited_for_for_ever(azure, execution, store):
    azure.hang_cancels()
    there = AzureMLExecution(poll_s=0.2, grace_minutes=0.01)
    cancel = clients_of(store.settings).ml.jobs.begin_cancel
    _, result = ended(azure, there, store, cancel)
    assert "was cancelled by somebody in the workspace and is not over" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False
