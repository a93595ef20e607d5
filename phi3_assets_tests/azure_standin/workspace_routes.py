"""The workspace itself."""

from phi3_assets_tests.azure_standin.names import ACCOUNT_ID, API_HOST, PROVIDERS, REGION, TENANT, VAULT
from phi3_assets_tests.azure_standin.resources import resource
from phi3_assets_tests.azure_standin.wire import Request, Response
from phi3_assets_tests.azure_standin.workspace import Workspace


def get(workspace: Workspace, request: Request) -> Response:
    """What it is and where its parts are."""
    properties = {
        "friendlyName": workspace.name,
        "description": "",
        "storageAccount": ACCOUNT_ID,
        "keyVault": f"{PROVIDERS}/Microsoft.Keyvault/vaults/{VAULT}",
        "applicationInsights": f"{PROVIDERS}/Microsoft.insights/components/standin",
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
