"""The workspace itself."""

from phi3_assets_tests.azure_standin.names import ACCOUNT, API_HOST, GROUP, REGION, SUBSCRIPTION, TENANT, VAULT
from phi3_assets_tests.azure_standin.resources import resource
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace


def get(workspace: Workspace, request: Request) -> Response:
    """What it is and where its parts are."""
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
    properties = {
        "friendlyName": workspace.name,
        "description": "",
        "storageAccount": f"{group}/Microsoft.Storage/storageAccounts/{ACCOUNT}",
        "keyVault": f"{group}/Microsoft.Keyvault/vaults/{VAULT}",
        "applicationInsights": f"{group}/Microsoft.insights/components/standin",
        "containerRegistry": None,
        "hbiWorkspace": False,
        "tenantId": TENANT,
        "provisioningState": "Succeeded",
        "v1LegacyMode": False,
        "workspaceId": "44444444-4444-4444-8444-444444444444",
        "storageHnsEnabled": False,
        "publicNetworkAccess": "Enabled",
        "discoveryUrl": f"https://{API_HOST}/discovery",
        "mlFlowTrackingUri": f"azureml://{API_HOST}/mlflow/v1.0{workspace.scope}",
    }
    return Response.of(
        200,
        {
            **resource(workspace, "", properties),
            "id": workspace.scope,
            "name": workspace.name,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": REGION,
            "tags": {},
            "identity": {"type": "SystemAssigned", "principalId": TENANT, "tenantId": TENANT},
            "kind": "Default",
            "sku": {"name": "Basic", "tier": "Basic"},
        },
    )
