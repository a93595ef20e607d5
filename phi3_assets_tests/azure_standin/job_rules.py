"""What the service asks of a job beyond the shape of its body."""

import re
from typing import Any

from phi3_assets_tests.azure_standin.computes import INSTANCE_TYPES, NODES, SERVERLESS
from phi3_assets_tests.azure_standin.errors import request_invalid, user_error
from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.runner import seconds
from phi3_assets_tests.azure_standin.wire import Response
from phi3_assets_tests.azure_standin.workspace import Workspace

MUTABLE = ("description", "tags", "displayName", "properties", "isArchived")
ELSEWHERE = ("azureml:", "azureml://registries/")
PLACEHOLDER = re.compile(r"\$\{\{(inputs|outputs)\.(\w+)\}\}")


def compute_name(properties: dict[str, Any]) -> str:
    """Last part of the compute's id; without one the job is serverless."""
    return str(properties.get("computeId") or SERVERLESS).rpartition("/")[2]


def broken_rule(workspace: Workspace, properties: dict[str, Any]) -> Response | None:
    """The service's refusal of a job, or None."""
    if properties["jobType"] != "Command":
        return request_invalid([f"The stand-in runs command jobs only, not {properties['jobType']}."])
    distribution = properties.get("distribution") or {"distributionType": "PyTorch"}
    if distribution["distributionType"] != "PyTorch":
        return request_invalid([f"The stand-in does not run {distribution['distributionType']}."])
    try:
        seconds((properties.get("limits") or {}).get("timeout") or "PT1H")
    except ValueError as error:
        return request_invalid([f"{error} Path 'properties.limits.timeout'."])
    resources = properties.get("resources") or {}
    count = resources.get("instanceCount", 1)
    if count < 1:
        return request_invalid([f"instanceCount must be at least 1, not {count}. Path 'properties.resources'."])
    compute = compute_name(properties)
    expected = f"{workspace.scope}/computes/{compute}"
    if compute not in NODES or (properties.get("computeId") and properties["computeId"].lower() != expected.lower()):
        message = f"Unknown compute target '{properties.get('computeId')}'."
        return user_error(400, message, ["BadArgument", "UnknownComputeTarget"])
    if count > NODES[compute]:
        message = f"Requested node count of {count} exceeds the maximum of {NODES[compute]} nodes of {compute}."
        return user_error(400, message, ["BadArgument", "NodeCountExceeded"])
    wanted = resources.get("instanceType")
    if compute == "arc-cluster" and wanted and wanted not in INSTANCE_TYPES:
        message = f"Instance type '{wanted}' was not found on Kubernetes compute '{compute}'."
        return user_error(400, message, ["BadArgument", "InvalidInstanceType"])
    return _missing_asset(workspace, properties) or _unknown_placeholder(properties)


def immutable_difference(job: Job, properties: dict[str, Any]) -> Response | None:
    """What a second PUT of a name is told, or None where it changes only what may change.

    It is compared with what the service has made of the first one, so the same body sent twice is refused, too:
    that is what a client meets that repeats a PUT whose answer was lost.
    """
    for field in sorted(job.properties.keys() - set(MUTABLE)):
        if _bare(job.properties[field]) != _bare(properties.get(field)):
            return user_error(
                400,
                "A job with this name already exists. If you are trying to create a new job, use a different name. If "
                f"you are trying to update an existing job, the existing job's {field[0].upper()}{field[1:]} cannot be "
                "changed. Only description, tags, displayName, properties, and isArchived can be updated.",
                ["Immutable", "JobPropertyImmutable"],
            )
    return None


def _missing_asset(workspace: Workspace, properties: dict[str, Any]) -> Response | None:
    for field, kind in (("codeId", "codes"), ("environmentId", "environments")):
        wanted = properties.get(field)
        if not wanted or wanted.startswith(ELSEWHERE):
            continue
        match = re.fullmatch(f"{re.escape(workspace.scope)}/{kind}/([^/]+)/versions/([^/]+)", wanted, re.IGNORECASE)
        if match is None or (kind, *match.groups()) not in workspace.assets:
            return user_error(400, f"{field} '{wanted}' was not found.", ["NotFound", "AssetNotFound"])
    return None


def _unknown_placeholder(properties: dict[str, Any]) -> Response | None:
    for side, name in PLACEHOLDER.findall(properties["command"]):
        if name not in (properties.get(side) or {}):
            return request_invalid([f"The command names {side}.{name}, which the job does not have."])
    return None


def _bare(value: Any) -> Any:
    """Without what is null or empty, which the service fills in where the client said nothing."""
    if isinstance(value, dict):
        return {name: bare for name, item in value.items() if (bare := _bare(item)) not in (None, {}, [])}
    return value
