"""Faults of a service and a network on every call of a step in a job: what passes changes nothing, the rest is said.

Each kind of call is struck by all of them, one after the other.
"""

import time

import dagster as dg
import pytest

from phi3_assets.azure.clients import TIMEOUTS
from phi3_assets.core.errors import UserError
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.azureml_job import job_name
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets_tests.conftest import raw_dataset_call
from phi3_assets_tests.resources.azureml.one_job import (
    SOON,
    address_of,
    blobs,
    ended,
    failure,
    run,
)
from phi3_assets_tests.resources.execution_contract import ExecutionContract, base_model_call

pytestmark = pytest.mark.azure

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
    assert [job["name"] for job in azure.jobs()] == [job_name(made.call, address_of(store), 1)]


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
