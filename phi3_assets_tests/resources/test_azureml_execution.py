"""Steps as command jobs, through unmodified clients, against Azurite and the stand-in."""

import contextlib
import json
import threading

import dagster as dg
import pytest
from azure.ai.ml import command

from phi3_assets.azure.blobs import remove_folder
from phi3_assets.core.errors import UserError
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.azureml_job import job_name
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.chosen_execution import chosen
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets_tests.conftest import raw_dataset_call
from phi3_assets_tests.resources.execution_contract import ExecutionContract

pytestmark = pytest.mark.azure


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


def test_nothing_of_a_job_is_left_but_the_artefact_and_its_log(azure, execution, store):
    made, _ = run(execution, store)
    names = [blob.name.removeprefix("phi3-assets/") for blob in store.container.list_blobs("phi3-assets/")]
    assert not [name for name in names if name.startswith(("jobs/", "checkpoints/"))]
    assert f"logs/raw_dataset/{made.call.identity}.log" in names


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

PASSING = [
    {"kind": "answer", "status": 429, "headers": {"Retry-After": "1"}},
    {"kind": "answer", "status": 500},
    {"kind": "answer", "status": 503},
    {"kind": "html"},
    {"kind": "reset"},
    {"kind": "stall", "seconds": 2},
]
CALLS = {
    "reading the workspace's things": [
        {"method": "GET", "path": "/datastores/"},
        {"method": "GET", "path": "/computes/"},
        {"method": "GET", "path": "/environments/"},
        {"method": "GET", "path": "/codes/"},
    ],
    "looking at the job": [{"method": "GET", "host": "management", "path": "/jobs/"}],
    "submitting": [
        {"method": "PUT", "path": "/environments/"},
        {"method": "POST", "path": "/startPendingUpload"},
        {"method": "PUT", "path": "/codes/"},
        {"method": "PUT", "host": "management", "path": "/jobs/"},
    ],
    "writing blobs": [{"method": "PUT", "host": "blob"}],
    "reading blobs": [{"method": "GET", "host": "blob"}],
    "logging in": [{"method": "POST", "host": "login"}],
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=list(CALLS))
def test_what_passes_makes_no_second_job_and_loses_nothing(azure, execution, store, calls):
    for call in calls:
        for fault in PASSING:
            azure.fault(**call, **fault)
    made, result = run(execution, store)
    assert result.success, failure(result).description
    assert len(azure.jobs()) == 1
    store.verify(made.ref)
    unused = [fault for fault in azure.faults() if not fault["used"]]
    assert unused == []


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
    with pytest.raises((dg.Failure, UserError), match=f"(?s){told}"):
        _raising(execution, store)
    assert azure.jobs() == []


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
    _foreign_job(store, job_name(call, _address(store), 1), "echo nothing done")
    _, result = run(execution, store)
    assert "ended well, but left no whole artefact" in failure(result).description
    assert "nothing done" in failure(result).metadata["end of log"].value
    assert store.find(call.step, call.identity) is None


def _foreign_job(store, name, text):
    from phi3_assets.azure.clients import clients_of

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


def test_a_node_that_answers_no_more_is_given_up_and_may_be_tried_again(azure, home, store):
    azure.hold("cpu-cluster")
    execution = AzureMLExecution(poll_s=0.2, grace_minutes=0.02)

    def no_answer():
        while not azure.jobs():
            pass
        azure.show(azure.jobs()[0]["name"], "NotResponding")
        while "CancelRequested" not in azure.jobs()[0]["history"]:
            pass
        azure.show(azure.jobs()[0]["name"], None)

    thread = threading.Thread(target=no_answer)
    thread.start()
    _, result = run(execution, store)
    thread.join()
    assert "NotResponding" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True


def ended(azure, execution, store, how):
    """Run while the job is held in the queue, and end it by `how(name)`."""
    azure.hold("cpu-cluster")

    def end():
        while not azure.jobs():
            pass
        how(azure.jobs()[0]["name"])

    thread = threading.Thread(target=end)
    thread.start()
    made, result = run(execution, store)
    thread.join()
    azure.hold("cpu-cluster", held=False)
    return made, result


def test_nodes_that_were_taken_away_are_a_reason_to_try_again(azure, execution, store):
    _, result = ended(azure, execution, store, azure.doom)
    assert "pre-empted" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is True
    made, again = run(execution, store)
    assert again.success
    assert [job["name"] for job in azure.jobs()] == [job_name(made.call, _address(store), n) for n in (1, 2)]


def test_what_the_service_says_is_told(azure, execution, store):
    def doom(name):
        azure.warn(name, "The disk of the node is full.")
        azure.doom(name, code="UserError", message="Error Code: ScriptExecution.StreamAccess.Authentication")

    _, result = ended(azure, execution, store, doom)
    assert "ScriptExecution.StreamAccess.Authentication" in failure(result).description
    assert "The disk of the node is full." in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False


def test_who_cancels_it_in_the_workspace_means_it(azure, execution, store):
    from phi3_assets.azure.clients import clients_of

    _, result = ended(azure, execution, store, lambda name: clients_of(store.settings).ml.jobs.begin_cancel(name))
    assert "was cancelled, by its time limit or by somebody in the workspace" in failure(result).description
    assert failure(result).metadata[TRANSIENT].value is False


def test_a_cancellation_that_hangs_is_said_to_cost_money(azure, home, store):
    azure.hold("cpu-cluster")
    azure.hang_cancels()
    _, result = run(AzureMLExecution(poll_s=0.2, queue_timeout_minutes=0.01, grace_minutes=0.02), store)
    assert "it may cost money. Look at https://ml.azure.com/runs/" in failure(result).description


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
