"""Jobs: submitted, looked at, cancelled."""

from typing import Any

from phi3_assets_tests.azure_standin.computes import SERVERLESS
from phi3_assets_tests.azure_standin.errors import not_found, user_error
from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.job_rules import (
    MUTABLE,
    broken_rule,
    compute_name,
    immutable_difference,
)
from phi3_assets_tests.azure_standin.names import ARTIFACT_STORE, BLOB_STORE, MANAGEMENT_HOST, REGION
from phi3_assets_tests.azure_standin.resources import resource
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace


def put(workspace: Workspace, request: Request, name: str) -> Response:
    """Submit; with a name that is taken only what may change is changed."""
    properties = request.json()["properties"]
    with workspace.lock:
        job = workspace.jobs.get(name)
        if job is not None:
            if refused := immutable_difference(job, properties):
                return refused
            job.properties.update({field: properties[field] for field in MUTABLE if field in properties})
            return Response.of(200, _resource(workspace, job))
        if refused := broken_rule(workspace, properties):
            return refused
        job = Job(name, _filled(name, properties), compute_name(properties))
        answer = _resource(workspace, job)
        workspace.jobs[name] = job
        workspace.launch(job)
    location = f"https://{MANAGEMENT_HOST}{request.target}"
    return Response.of(201, answer, {"Location": location})


def get(workspace: Workspace, request: Request, name: str) -> Response:
    """One."""
    job = workspace.jobs.get(name)
    return Response.of(200, _resource(workspace, job)) if job else not_found("Job", name)


def list_all(workspace: Workspace, request: Request) -> Response:
    """All, the last one first."""
    return Response.of(200, {"value": [_resource(workspace, job) for job in list(workspace.jobs.values())[::-1]]})


def cancel(workspace: Workspace, request: Request, name: str) -> Response:
    """Ask for an end; whether it has come is asked of the address in Location."""
    job = workspace.jobs.get(name)
    if job is None:
        return not_found("Job", name)
    if job.history[-1] == "Finalizing":
        return user_error(400, f"Job {name} is in status Finalizing and cannot be canceled.", ["BadArgument"])
    if job.over:
        return Response(200)
    job.cancel.set()
    job.move("CancelRequested")
    return Response(202, b"", _poll_again(workspace, request, name))


def cancel_result(workspace: Workspace, request: Request, name: str) -> Response:
    """200 when a cancelled job has ended."""
    job = workspace.jobs[name]
    return Response(200) if job.over else Response(202, b"", _poll_again(workspace, request, name))


def _poll_again(workspace: Workspace, request: Request, name: str) -> dict[str, str]:
    version = request.query["api-version"]
    address = f"https://{MANAGEMENT_HOST}{workspace.scope}/mfeOperationResults/jc:{name}?api-version={version}"
    return {"Location": address, "Retry-After": "1"}


def _filled(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The job with everything that the service adds to it, as recorded."""
    compute = compute_name(given)
    inputs = {key: _input(value) for key, value in (given.get("inputs") or {}).items()}
    outputs = {key: _output(name, key, value) for key, value in (given.get("outputs") or {}).items()}
    outputs["default"] = {
        "description": None,
        "uri": f"azureml://datastores/{ARTIFACT_STORE}/ExperimentRun/dcid.{name}",  # without /paths, as recorded
        "assetName": None,
        "mode": "ReadWriteMount",
        "jobOutputType": "uri_folder",
    }
    resources = {
        "instanceCount": 1,
        "instanceType": None,
        "properties": None,
        "shmSize": "2g",
        "dockerArgs": None,
        **(given.get("resources") or {}),
    }
    tier = "Standard" if compute == SERVERLESS else "Null"
    cluster = None if compute == SERVERLESS else compute
    return {
        "description": None,
        "tags": {},
        "displayName": name,
        "experimentName": "Default",
        "computeId": None,
        "isArchived": False,
        "identity": None,
        "componentId": None,
        "notificationSetting": None,
        "codeId": None,
        "distribution": None,
        "limits": None,
        "environmentVariables": {},
        "parameters": {},
        "queueSettings": {"jobTier": tier},
        **given,
        "inputs": inputs,
        "outputs": outputs,
        "resources": resources,
        "properties": {
            **(given.get("properties") or {}),
            "_azureml.ComputeTargetType": "amlctrain",
            "_azureml.ClusterName": cluster,
        },
    }


def _input(given: dict[str, Any]) -> dict[str, Any]:
    mode = {} if given["jobInputType"] == "literal" else {"mode": "ReadOnlyMount"}
    return {"description": None, **mode, **given}


def _output(job: str, name: str, given: dict[str, Any]) -> dict[str, Any]:
    uri = given.get("uri") or f"azureml://datastores/{BLOB_STORE}/paths/azureml/{job}/{name}/"
    return {"description": None, "assetName": None, "mode": "ReadWriteMount", **given, "uri": uri}


def _resource(workspace: Workspace, job: Job) -> dict[str, Any]:
    nothing = {"port": None, "status": None, "errorMessage": None, "properties": None, "nodes": None}
    studio = f"https://ml.azure.com/runs/{job.name}?wsid={workspace.scope}"
    tracking = f"azureml://{REGION}.api.azureml.ms/mlflow/v1.0{workspace.scope}?"
    services = {
        "Tracking": {"jobServiceType": "Tracking", "endpoint": tracking, **nothing},
        "Studio": {"jobServiceType": "Studio", "endpoint": studio, **nothing},
    }
    properties = {**job.properties, "status": job.status, "services": services}
    return resource(workspace, f"jobs/{job.name}", properties, job.created_at)
