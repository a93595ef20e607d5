"""The judge is Microsoft's, and the stand-in listens to it."""

import copy
import json
from pathlib import Path

import pytest
import requests
from azure.ai.ml import Input, Output, PyTorchDistribution
from azure.ai.ml.entities import CommandJobLimits

from phi3_assets_tests.azure_standin import judge
from phi3_assets_tests.azure_standin.submitting import ROOT, submit

pytestmark = pytest.mark.azure
RECORDED = json.loads((Path(judge.__file__).parent / "microsoft" / "recorded" / "azureml-recorded.json").read_text())


def of(method, path, status):
    return next(
        exchange
        for exchange in RECORDED
        if (exchange["method"], exchange["status"]) == (method, status) and exchange["path"].startswith(path)
    )


@pytest.mark.parametrize(
    ("method", "path", "resource"),
    [
        ("PUT", "jobs/", "workspaces/jobs"),
        ("PUT", "environments/", "workspaces/environments/versions"),
        ("POST", "datastores/", "workspaces/datastores:listSecrets"),
    ],
)
def test_what_the_real_service_took_is_taken(method, path, resource):
    exchange = next(e for e in RECORDED if e["method"] == method and e["path"].startswith(path) and e["status"] < 300)
    name = exchange["path"].rpartition("/")[2] if method == "PUT" else ""
    assert judge.request_problems(resource, exchange["api-version"], exchange["requestBody"], name) == []
    assert judge.response_problems(resource, exchange["api-version"], exchange["responseBody"]) == []


@pytest.mark.parametrize(("path", "resource"), [("jobs/", "jobs"), ("datastores/", "datastores")])
def test_what_the_real_service_answered_is_accepted(path, resource):
    exchange = of("GET", path, 200)
    problems = judge.response_problems(f"workspaces/{resource}", exchange["api-version"], exchange["responseBody"])
    assert problems == []


def test_what_the_real_service_refused_is_refused():
    exchange = of("PUT", "jobs/", 400)
    problems = judge.request_problems("workspaces/jobs", exchange["api-version"], exchange["requestBody"], "a")
    assert [("assetVersion" in problem) for problem in problems] == [True, True]


def test_an_api_version_without_a_schema_is_no_pass():
    with pytest.raises(judge.Unjudged):
        judge.request_problems("workspaces/jobs", "2031-01-01", {}, "a")


@pytest.fixture
def body(azure, clients):
    """What the unmodified client sends for a job that uses much of what there is, and where to."""
    azure.hold("cpu-cluster")
    name = submit(
        clients,
        "true ${{inputs.data}} ${{inputs.epochs}} ${{outputs.model}}",
        inputs={"data": Input(type="uri_folder", path=f"{ROOT}/in/"), "epochs": 3},
        outputs={"model": Output(type="uri_folder", path=f"{ROOT}/out/", mode="rw_mount")},
        instance_count=2,
        distribution=PyTorchDistribution(process_count_per_instance=2),
        limits=CommandJobLimits(timeout=60),
        environment_variables={"A": "b"},
        tags={"c": "d"},
    )
    exchange = azure.traffic("PUT", "management", f"/jobs/{name}")[0]
    return exchange["request"]


def ask(clients, method, path, version, body=None):
    token = clients.credential.get_token("https://management.azure.com/.default").token
    return requests.request(
        method,
        f"https://management.azure.com{clients.settings.scope}/{path}?api-version={version}",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
    )


def mutants(value, path=()):
    """Every single fault: a value of another type, an unknown member, an unknown word where words are few."""
    if isinstance(value, dict):
        free = path and path[-1] in ("tags", "environmentVariables", "inputs", "outputs", "properties")
        if not free or path == ("properties",):
            yield path, {**value, "unknownMember": 1}
        for name, item in value.items():
            yield from mutants(item, (*path, name))
    elif isinstance(value, bool | int):
        yield path, "wrong"
    elif path[-1] in ("jobType", "jobInputType", "jobOutputType", "distributionType", "jobLimitsType", "mode"):
        yield path, "Wrong"
    else:
        yield path, {"wrong": 1}


def replaced(body, path, value):
    if not path:
        return value
    changed = copy.deepcopy(body)
    inside = changed
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    return changed


def test_every_single_fault_in_a_jobs_body_is_refused(azure, clients, body):
    assert judge.request_problems("workspaces/jobs", "2025-01-01-preview", body, "a") == []
    faults = list(mutants(body))
    missed = [
        path
        for path, value in faults
        if not judge.request_problems("workspaces/jobs", "2025-01-01-preview", replaced(body, path, value), "a")
    ]
    assert len(faults) > 30
    assert missed == []


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("properties", "unknownMember"), 1, "unknownMember"),
        (("properties", "command"), 7, "7 is not of type"),
        (("properties", "jobType"), "Komand", "Komand"),
        (("properties", "outputs", "model", "mode"), "Sometimes", "Sometimes"),
        (("properties", "command"), None, "None is not of type"),
        (("properties", "limits", "timeout"), "1 hour", "ISO 8601"),
        (("properties", "resources", "instanceCount"), 0, "at least 1"),
        (("properties", "command"), "true ${{inputs.missing}}", "inputs.missing"),
    ],
)
def test_the_stand_in_answers_400_and_says_what_is_wrong(azure, clients, body, path, value, told):
    answer = ask(clients, "PUT", "jobs/wrong", "2025-01-01-preview", replaced(body, path, value))
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["code"] == "UserError"
    assert told in json.dumps(error["details"])
    assert len(azure.jobs()) == 1


def test_an_answer_that_the_schema_refuses_is_a_fault_of_the_stand_in(azure, clients):
    name = submit(clients, "true")
    azure.show(name, "Sleeping")
    answer = ask(clients, "GET", f"jobs/{name}", "2024-01-01-preview")
    assert answer.status_code == 500
    (own,) = azure.forgive()["own_faults"]
    assert "Sleeping" in own


def test_what_was_recorded_can_be_judged_again(azure, clients):
    name = submit(clients, "true")
    azure.wait_for(name, "Completed")
    clients.ml.jobs.get(name)
    exchanges = azure.traffic(host="management")
    assert [judge.exchange_problems(exchange) for exchange in exchanges] == [[]] * len(exchanges)
    submitted = copy.deepcopy(azure.traffic("PUT", "management", "/jobs/")[0])
    submitted["request"]["properties"]["jobType"] = "Komand"
    submitted["response"]["properties"]["status"] = "Sleeping"
    assert ["Komand" in str(judge.exchange_problems(submitted)), len(judge.exchange_problems(submitted))] == [True, 2]
