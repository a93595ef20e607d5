"""Datastores: the two containers that every workspace comes with."""

import datetime
from typing import Any

from phi3_assets_tests.azure_standin.errors import not_found
from phi3_assets_tests.azure_standin.names import ACCOUNT, BLOB_STORE, GROUP, SUBSCRIPTION
from phi3_assets_tests.azure_standin.resources import resource
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace


def list_all(workspace: Workspace, request: Request) -> Response:
    """All, or the default one only."""
    names = [BLOB_STORE] if request.query.get("isDefault", "").lower() == "true" else list(workspace.containers)
    return Response.of(200, {"value": [_resource(workspace, name) for name in names]})


def get(workspace: Workspace, request: Request, name: str) -> Response:
    """One, without its secrets."""
    if name not in workspace.containers:
        return not_found("DataStore", name)
    return Response.of(200, _resource(workspace, name))


def list_secrets(workspace: Workspace, request: Request, name: str) -> Response:
    """A shared access signature of the account; it begins with a question mark, as the real one does."""
    from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

    if name not in workspace.containers:
        return not_found("DataStore", name)
    token = generate_account_sas(
        ACCOUNT,
        workspace.key,
        ResourceTypes(container=True, object=True),
        AccountSasPermissions(read=True, create=True, update=True, write=True, delete=True, list=True),
        datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
    )
    return Response.of(200, {"secretsType": "Sas", "sasToken": f"?{token}"})


def _resource(workspace: Workspace, name: str) -> dict[str, Any]:
    properties = {
        "description": None,
        "tags": None,
        "properties": None,
        "isDefault": name == BLOB_STORE,
        "credentials": {"credentialsType": "AccountKey"},
        "subscriptionId": SUBSCRIPTION,
        "resourceGroup": GROUP,
        "datastoreType": "AzureBlob",
        "accountName": ACCOUNT,
        "containerName": workspace.containers[name].container_name,
        "endpoint": "core.windows.net",
        "protocol": "https",
        "serviceDataAccessAuthIdentity": "WorkspaceSystemAssignedIdentity",
    }
    return resource(workspace, f"datastores/{name}", properties)
