"""Steps as command jobs, through unmodified clients, against Azurite and the stand-in."""

import contextlib
import json
import os
import signal
import threading
import time

import dagster as dg
import pytest
from azure.ai.ml import command

from phi3_assets.azure.blobs import remove_folder
from phi3_assets.azure.clients import TIMEOUTS, Clients, clients_of
from phi3_assets.azure.history import log_of
from phi3_assets.core.errors import UserError
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.azureml_job import job_name
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.chosen_execution import ChosenExecution, chosen
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets_tests.conftest import raw_dataset_call
from phi3_assets_tests.resources.execution_contract import ExecutionContract, base_model_call

pytestmark = pytest.mark.azure

REFUSED = {"times": -1, "status": 403, "code": "AuthorizationPermissionMismatch"}


@pytest.fixture
def execution(azure, monkeypatch):
    azure.apply(monkeypatch)
    return AzureMLExecution(poll_s=0.3, observe_every_s=0.1)


@pytest.fixture
def store(home, execution):
    return BlobArtifactStore(home=str(home))


class TestAzureMLExecution(ExecutionContract):
    def forget(self, store, ref):
        remove_folder(store.container, f"phi3-assets/artefacts/{ref.kind}/{ref.identity}")

    def break_file(self, store, ref, path):
        blob = store.container.get_blob_client(f"phi3-assets/{store.attempt_path(ref)}/{path}")
        data = bytearray(blob.download_blob().readall())
        data[-1] ^= 1
        blob.upload_blob(bytes(data), overwrite=True)


def run(execution, store, instance=None, **more):
    """Read the home's files in a job: what was made, and the run's result."""
    call, inputs = raw_dataset_call(store)
    contract = ExecutionContract()
    made, result = contract.run(_Bound(execution, more), store, call, inputs, instance)
    return made, result


class _Bound:
    """An execution with more arguments for `run_step`."""

    def __init__(self, execution, more):
        self.execution, self.more = execution, more

    def run_step(self, *arguments):
        return self.execution.run_step(*arguments, **self.more)


def failure(result) -> dg.Failure:
    return ExecutionContract().failure(result)


def blobs(store, *folders):
    """Names below the prefix of what stands in these folders."""
    names = [blob.name.removeprefix("phi3-assets/") for blob in store.container.list_blobs("phi3-assets/")]
    return [name for name in names if name.startswith(folders)]


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
        pass
    url = records[0].asset_observation.metadata["AzureML studio"].value
    assert url.startswith("https://ml.azure.com/runs/raw-dataset-")
    azure.hold("cpu-cluster", held=False)
    thread.join()


# Faults. Each strikes one kind of call with everything that a service and a network do, one after the other.

# The control plane says in milliseconds when to come back, where a client would double its pause each time.
SOON = {"x-ms-retry-after-ms": "50"}
PASSING = [
    {"kind": "reset"},
    {"kind": "answer", "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": "answer", "status": 500, "headers": SOON},
    {"kind": "answer", "status": 503, "headers": SOON},
    {"kind": "html", "headers": SOON},
]
CALLS = {
    "reading the workspace's things": [
        {"method": "GET", "path": "/datastores/"},
        {"method": "GET", "path": "/computes/"},
        {"method": "GET", "path": "/environments/"},
    ],
    "looking at the job": [{"method": "GET", "host": "management", "path": "/jobs/"}],
    "submitting": [
        {"method": "PUT", "path": "/environments/"},
        {"method": "PUT", "host": "management", "path": "/jobs/"},
    ],
    "logging in": [{"method": "POST", "host": "login"}],
}


def order(azure, calls):
    for call in calls:
        for fault in PASSING:
            azure.fault(**call, **fault)


def unused(azure):
    return [fault for fault in azure.faults() if not fault["used"]]


@pytest.mark.parametrize("calls", CALLS.values(), ids=list(CALLS))
def test_what_passes_makes_no_second_job_and_loses_nothing(azure, execution, store, calls):
    order(azure, calls)
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert len(azure.jobs()) == 1
    store.verify(made.ref)
    assert unused(azure) == []


def test_what_passes_at_the_storage_account_loses_nothing(azure, execution, store):
    """Its client waits some seconds after each, so each strikes another request; those to remove go side by side."""
    for method in ("PUT", "GET"):
        for number, fault in enumerate(PASSING):
            azure.fault(method=method, host="blob", skip=number, **fault)
    order(azure, [{"method": "DELETE", "host": "blob"}])
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert len(azure.jobs()) == 1
    store.verify(made.ref)
    assert blobs(store, "jobs/") == []
    assert unused(azure) == []


def test_a_cancellation_comes_through_what_passes(azure, home, store):
    azure.hold("cpu-cluster")
    order(azure, [{"method": "POST", "path": "/cancel"}])
    _, result = run(AzureMLExecution(poll_s=0.2, queue_timeout_minutes=0.02), store)
    assert "PHI3_AZURE_QUEUE_TIMEOUT_MINUTES" in failure(result).description
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]
    assert unused(azure) == []


def test_the_services_words_come_through_what_passes(azure, execution, store):
    asked = [
        {"method": "GET", "host": "management", "path": "/workspaces/standin-[0-9]+$"},
        {"method": "GET", "host": "azureml.ms", "path": "/discovery"},
        {"method": "POST", "host": "azureml.ms", "path": "/rundata"},
    ]
    order(azure, asked)
    _, result = ended(azure, execution, store, azure.doom)
    assert "pre-empted" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True
    assert unused(azure) == []


def test_the_hubs_token_is_read_through_what_passes(azure, home, store):
    azure.secret("hf-token", "hf_" + "canary7Yc1qZ0secret")
    order(azure, [{"method": "GET", "host": "vault"}])
    there = AzureMLExecution(poll_s=0.3, hf_token_secret="hf-token")
    _, result = ExecutionContract().run(there, store, base_model_call(), {})
    assert result.success, failure(result).description
    assert unused(azure) == []


STALLING = [
    {"method": "POST", "host": "login"},
    {"method": "GET", "path": "/datastores/"},
    {"method": "GET", "path": "/computes/"},
    {"method": "GET", "path": "/environments/"},
    {"method": "PUT", "path": "/environments/"},
    {"method": "PUT", "host": "management", "path": "/jobs/"},
    {"method": "GET", "host": "management", "path": "/jobs/"},
    {"method": "PUT", "host": "blob"},
    {"method": "GET", "host": "blob"},
]


def test_a_call_that_stalls_for_longer_than_is_waited_is_made_again(azure, execution, store, monkeypatch):
    """After a minute, for whoever waits for no less."""
    monkeypatch.setitem(TIMEOUTS, "read_timeout", 1.5)
    for call in STALLING:
        azure.fault(**call, kind="stall", seconds=200)
    began = time.monotonic()
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert time.monotonic() - began < 150  # no client waited for any of them
    assert len(azure.jobs()) == 1
    store.verify(made.ref)
    assert unused(azure) == []


def test_tokens_that_run_out_while_a_job_runs(azure, execution, store):
    azure.token_lifetime(2)
    azure.fault(method="GET", host="blob", kind="answer", status=401, code="InvalidAuthenticationInfo", skip=3)
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert len(azure.jobs()) == 1
    store.verify(made.ref)


def test_an_answer_that_is_lost_after_the_job_was_made_makes_no_second_one(azure, execution, store):
    azure.fault(method="PUT", host="management", path="/jobs/", kind="lost", times=2)
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert [job["name"] for job in azure.jobs()] == [job_name(made.call, _address(store), 1)]


def _address(store):
    return f"https://phi3standin.blob.core.windows.net/{store.container.container_name}/phi3-assets/"


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ({"path": "/computes/", "status": 401}, "nobody is logged in to Azure .* `az login`"),
        ({"path": "/computes/", "kind": "forbidden"}, "access was refused .*needs the role 'AzureML Data Scientist'"),
        ({"path": "/computes/", "status": 404}, "Compute cpu-cluster .*no such thing.*az ml compute create"),
        ({"path": "/datastores/", "status": 404}, "Datastore workspaceblobstore .*az ml datastore list"),
        (
            {"method": "PUT", "host": "management", "path": "/jobs/", "kind": "quota"},
            "the quota does not allow it .*PHI3_AZURE_INSTANCE_COUNT",
        ),
        (
            {"method": "PUT", "host": "management", "path": "/jobs/", "kind": "forbidden"},
            "access was refused .*'AzureML Data Scientist'",
        ),
        ({"host": "blob", "status": 403, "code": "AuthorizationPermissionMismatch"}, "'Storage Blob Data Contributor'"),
    ],
)
def test_what_does_not_pass_is_said_at_once_with_what_to_do(azure, execution, store, fault, told):
    azure.fault(**{"times": -1, **fault})
    began = time.monotonic()
    with pytest.raises((dg.Failure, UserError), match=f"(?s){told}"):
        _raising(execution, store)
    assert time.monotonic() - began < 8  # sooner than what may pass is given up
    assert azure.jobs() == []


def test_a_workspace_that_is_not_there_is_said_and_not_what_was_asked_for_in_it(azure, execution, store, monkeypatch):
    monkeypatch.setenv("PHI3_AZURE_WORKSPACE", "another")
    with pytest.raises(UserError, match="(?s)Workspace another .*no such thing.*`az ml workspace list"):
        _raising(execution, store)


def _raising(execution, store):
    contract = ExecutionContract()
    call, inputs = raw_dataset_call(store)
    _, result = contract.run(execution, store, call, inputs)
    if hasattr(contract, "raised"):
        assert contract.raised.allow_retries is False
        raise contract.raised
    event = next(event for event in result.all_events if event.is_step_failure)
    raise UserError(event.step_failure_data.error.to_string())


# What a job's end means.


def test_a_job_that_leaves_nothing_is_a_failure_though_it_ended_well(azure, execution, store):
    """dagster-azure's client materialises it."""
    call, _ = raw_dataset_call(store)
    _foreign_job(store, job_name(call, _address(store), 1), "sleep 2; echo nothing done")
    _, result = run(execution, store)
    assert "ended well, but left no whole artefact" in failure(result).description
    assert "nothing done" in failure(result).metadata["end of log"].value
    assert store.find(call.step, call.identity) is None


def _foreign_job(store, name, text):
    clients_of(store.settings).ml.jobs.create_or_update(
        command(
            name=name,
            command=text,
            environment="azureml://registries/azureml/environments/any/versions/1",
            compute="cpu-cluster",
        )
    )


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
        while not azure.jobs():
            pass
        azure.show(azure.jobs()[0]["name"], status)
        while "CancelRequested" not in azure.jobs()[0]["history"]:
            pass
        azure.show(azure.jobs()[0]["name"], None)

    thread = threading.Thread(target=no_answer)
    thread.start()
    _, result = run(execution, store)
    thread.join()
    assert f"it had been {status} for" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True


def ended(azure, execution, store, how, *, held=False):
    """Run while the job is held in the queue, and end it by `how(name)`; `held`: the queue stands afterwards too."""
    azure.hold("cpu-cluster")

    def end():
        while not azure.jobs():
            pass
        how(azure.jobs()[0]["name"])

    thread = threading.Thread(target=end)
    thread.start()
    made, result = run(execution, store)
    thread.join()
    azure.hold("cpu-cluster", held=held)
    return made, result


def test_nodes_that_were_taken_away_are_a_reason_to_try_again(azure, execution, store):
    _, result = ended(azure, execution, store, azure.doom)
    assert "pre-empted" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True
    made, again = run(execution, store)
    assert again.success
    assert [job["name"] for job in azure.jobs()] == [job_name(made.call, _address(store), n) for n in (1, 2)]


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
    _foreign_job(store, job_name(call, _address(store), 1), "echo last words; sleep 2; kill -9 $$")
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

    _foreign_job(store, "a-job", "echo something said")
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


# Interrupts, as they come to the process that executes a run.


def interrupted(execution, store, *moments):
    """Run it, and interrupt it at the end of each of the moments, one after the other."""

    def interrupt():
        for moment in moments:
            moment()
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    _, result = run(execution, store)
    thread.join()
    (data,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert data.error.cls_name == "DagsterExecutionInterruptedError", data.error.to_string()


def struck(azure, number=0):
    """Wait until a fault that was ordered strikes."""
    while not azure.faults()[number]["used"]:
        time.sleep(0.05)
    time.sleep(0.3)


def test_an_interrupt_while_the_job_is_submitted_leaves_none(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="PUT", host="management", path="/jobs/", kind="stall", seconds=2)
    interrupted(execution, store, lambda: struck(azure))
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]


def test_a_second_interrupt_does_not_keep_the_first_from_cancelling(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="POST", path="/cancel", status=503, times=2)

    def queued():
        while not azure.jobs():
            time.sleep(0.05)
        time.sleep(0.5)

    interrupted(execution, store, queued, lambda: struck(azure))
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]


def test_an_interrupt_stays_one_though_nothing_can_be_removed_or_cancelled(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="DELETE", host="blob", **REFUSED)

    def queued():
        while not azure.jobs():
            time.sleep(0.05)
        time.sleep(0.5)

    interrupted(execution, store, queued)
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]


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
