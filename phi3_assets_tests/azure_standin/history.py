"""<region>.api.azureml.ms: discovery, what became of runs, where outputs are."""

import datetime
import re
from typing import Any

from phi3_assets_tests.azure_standin import tokens
from phi3_assets_tests.azure_standin.errors import not_found
from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.names import (
    ACCOUNT,
    API_HOST,
    ARTIFACT_STORE,
    BLOB_HOST,
    GROUP,
    REGION,
    SUBSCRIPTION,
)
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace
from phi3_assets_tests.azure_standin.world import World

AUDIENCES = ("https://management.azure.com", "https://ml.azure.com")
ASSET = re.compile(r".*/data/azureml_(?P<job>.+)_output_data_(?P<output>.+)/versions/1")


def answer(world: World, request: Request) -> Response:
    """Route one request."""
    if request.path == "/discovery":
        return Response.of(200, _discovery())
    if refused := tokens.refusal(request, AUDIENCES):
        return refused
    workspace = world.workspace
    scope = re.escape(workspace.scope)
    if re.fullmatch(f"/history/v1.0{scope}/rundata", request.path, re.IGNORECASE):
        return _run_data(workspace, request.json()["runId"])
    if match := re.fullmatch(f"/history/v1.0{scope}/runs/([^/]+)/details", request.path, re.IGNORECASE):
        return _details(workspace, match[1])
    if match := re.fullmatch(f"/history/v1.0{scope}/experiments/[^/]+/runs/([^/]+)", request.path, re.IGNORECASE):
        return _run(workspace, request, match[1])
    if re.fullmatch(f"/data/v1.0{scope}/dataversion/batchGetResolvedUris", request.path, re.IGNORECASE):
        return _resolved(workspace, request.json()["values"])
    raise LookupError(f"The stand-in's history has no {request.method} {request.path}.")


def _discovery() -> dict[str, str]:
    return {
        "api": f"https://{API_HOST}",
        "experimentation": f"https://{REGION}.experiments.azureml.net",
        "history": f"https://{REGION}.experiments.azureml.net",
        "hyperdrive": f"https://{REGION}.experiments.azureml.net",
        "labeling": f"https://{REGION}.experiments.azureml.net",
        "modelmanagement": f"https://{REGION}.modelmanagement.azureml.net",
        "pipelines": f"https://{REGION}.aether.ms",
        "studio": "https://ml.azure.com",
    }


def _run_data(workspace: Workspace, name: str) -> Response:
    job = workspace.jobs.get(name)
    return Response.of(200, {"runMetadata": _metadata(workspace, job)}) if job else not_found("Run", name)


def _run(workspace: Workspace, request: Request, name: str) -> Response:
    job = workspace.jobs.get(name)
    if job is None:
        return not_found("Run", name)
    if request.method == "PATCH":
        job.properties["tags"] = {**job.properties["tags"], **(request.json().get("tags") or {})}
    return Response.of(200, _metadata(workspace, job))


def _metadata(workspace: Workspace, job: Job) -> dict[str, Any]:
    return {
        "runId": job.name,
        "status": job.status,
        "tags": job.properties["tags"],
        "displayName": job.properties["displayName"],
        "createdUtc": job.created_at,
        "startTimeUtc": job.started_at,
        "endTimeUtc": job.ended_at,
        "error": _error(job),
        "warnings": [{"source": "AzureMLCompute", "message": text} for text in job.warnings] or None,
        "cancelationReason": job.cancel_reason,
        "currentAttemptId": max(job.attempt, 1),
        "dataContainerId": f"dcid.{job.name}",
        "target": job.compute,
        "queueingInfo": None,
        "inputs": {},
        "outputs": {
            output: {"assetId": _asset_id(workspace, job.name, output), "type": "UriFolder"}
            for output in (job.properties["outputs"] if job.status == "Completed" else {})
        },
    }


def _error(job: Job) -> dict[str, Any] | None:
    if job.error is None:
        return None
    code, message = job.error
    return {
        "error": {
            "code": code,
            "severity": None,
            "message": message,
            "messageFormat": None,
            "messageParameters": {},
            "referenceCode": None,
            "detailsUri": None,
            "target": None,
            "details": [],
            "innerError": None,
            "debugInfo": None,
            "additionalInfo": None,
        },
        "correlation": None,
        "environment": None,
        "location": None,
        "time": "0001-01-01T00:00:00+00:00",
        "componentName": "CommonRuntime",
    }


def _details(workspace: Workspace, name: str) -> Response:
    from azure.storage.blob import BlobSasPermissions, generate_blob_sas

    job = workspace.jobs.get(name)
    if job is None:
        return not_found("Run", name)
    container = workspace.containers[ARTIFACT_STORE].container_name
    expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    files = {}
    for log in job.log_names:
        path = f"ExperimentRun/dcid.{name}/{log}"
        token = generate_blob_sas(
            ACCOUNT, container, path, account_key=workspace.key, permission=BlobSasPermissions(read=True), expiry=expiry
        )
        files[log] = f"https://{BLOB_HOST}/{container}/{path}?{token}"
    metadata = _metadata(workspace, job)
    body = {
        "runId": name,
        "target": job.compute,
        "status": job.status,
        "startTimeUtc": job.started_at,
        "endTimeUtc": job.ended_at,
        "error": metadata["error"],
        "warnings": metadata["warnings"] or [],
        "properties": {},
        "logFiles": files,
    }
    return Response.of(200, body)


def _resolved(workspace: Workspace, asset_ids: list[str]) -> Response:
    values = {}
    for asset_id in asset_ids:
        match = ASSET.fullmatch(asset_id)
        if match is None or match["job"] not in workspace.jobs:
            return not_found("Data", asset_id)
        uri = workspace.jobs[match["job"]].properties["outputs"][match["output"]]["uri"]
        where = f"subscriptions/{SUBSCRIPTION}/resourcegroups/{GROUP}/workspaces/{workspace.name}"
        long = uri.replace("azureml://datastores/", f"azureml://{where}/datastores/", 1)
        values[asset_id] = {"uri": long, "type": "UriFolder", "legacyDatasetType": None}
    return Response.of(200, {"values": values})


def _asset_id(workspace: Workspace, job: str, output: str) -> str:
    where = f"azureml://locations/{REGION}/workspaces/{workspace.name}"
    return f"{where}/data/azureml_{job}_output_data_{output}/versions/1"
