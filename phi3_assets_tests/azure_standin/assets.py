"""Versioned assets of a workspace: code, environments, data, models."""

import datetime
import json
import uuid
from typing import Any

import yaml

from phi3_assets_tests.azure_standin.errors import not_found, user_error
from phi3_assets_tests.azure_standin.names import ACCOUNT, ACCOUNT_ID, BLOB_HOST
from phi3_assets_tests.azure_standin.resources import resource
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace

SINGULAR = {"codes": "Code", "environments": "Environment", "data": "Data", "models": "Model"}
FILLED_IN: dict[str, dict[str, Any]] = {
    "codes": {"provisioningState": "Succeeded"},
    "environments": {
        "environmentType": "UserCreated",
        "osType": "Linux",
        "autoRebuild": "Disabled",
        "provisioningState": "Succeeded",
        "stage": "Development",
    },
    "data": {},
    # azure-ai-ml reads properties.flavors without looking whether it is there.
    "models": {"flavors": {}, "provisioningState": "Succeeded", "stage": "Development"},
}


def get(workspace: Workspace, request: Request, kind: str, name: str, version: str) -> Response:
    """One version."""
    found = workspace.assets.get((kind, name, version))
    return Response.of(200, found) if found else not_found(SINGULAR[kind], f"{name}:{version}")


def list_versions(workspace: Workspace, request: Request, kind: str, name: str) -> Response:
    """All versions of a name, the last one made first; code can be asked for by its hash."""
    found = [asset for (a, b, _), asset in workspace.assets.items() if (a, b) == (kind, name)]
    wanted = request.query.get("hash")
    if wanted:
        found = [asset for asset in found if asset["properties"]["properties"].get("hash_sha256") == wanted]
    if not found and kind != "codes":
        return not_found(f"{SINGULAR[kind]}Container", name)
    return Response.of(200, {"value": found[::-1]})


def put(workspace: Workspace, request: Request, kind: str, name: str, version: str) -> Response:
    """Make a version. What it is made of cannot be changed afterwards; description, tags and the like can."""
    properties = _filled(kind, request.json()["properties"])
    before = workspace.assets.get((kind, name, version))
    for field in ("image", "condaFile", "build", "codeUri", "dataUri", "modelUri"):
        if before and before["properties"].get(field) != properties.get(field):
            return user_error(
                400,
                f"A {SINGULAR[kind].lower()} with this name and version already exists. If you are trying to create a "
                f"new one, use a different name or version. The existing one's {field} cannot be changed.",
                ["Immutable", "AssetPropertyImmutable"],
            )
    made = resource(workspace, f"{kind}/{name}/versions/{version}", properties)
    workspace.assets[kind, name, version] = made
    return Response.of(200 if before else 201, made)


def start_pending_upload(workspace: Workspace, request: Request, name: str, version: str) -> Response:
    """A container of its own to upload code to, and a signature for it."""
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    container = workspace.add_container(f"code-{uuid.uuid4()}")
    token = generate_container_sas(
        ACCOUNT,
        container,
        account_key=workspace.key,
        permission=ContainerSasPermissions(read=True, add=True, create=True, write=True, list=True),
        expiry=datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )
    uri = f"https://{BLOB_HOST}/{container}"
    return Response.of(
        200,
        {
            "pendingUploadId": str(uuid.uuid4()),
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": uri,
                "storageAccountArmId": ACCOUNT_ID,
                "credential": {"credentialType": "SAS", "sasUri": f"{uri}?{token}"},
            },
        },
    )


def _filled(kind: str, properties: dict[str, Any]) -> dict[str, Any]:
    filled = {"description": None, "tags": {}, "properties": {}, "isArchived": False, **properties, **FILLED_IN[kind]}
    if kind == "codes":
        filled["properties"] = {name: str(value) for name, value in filled["properties"].items()}
    if filled.get("condaFile"):
        # As recorded: the service reads the YAML and writes it down again as JSON.
        filled["condaFile"] = json.dumps(yaml.safe_load(filled["condaFile"]), indent=2)
    return filled
