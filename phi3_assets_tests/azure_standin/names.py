"""What the stand-in's Azure is called."""

TENANT = "11111111-1111-4111-8111-111111111111"
SUBSCRIPTION = "22222222-2222-4222-8222-222222222222"
CLIENT = "33333333-3333-4333-8333-333333333333"
GROUP = "standin-group"
REGION = "eastus"
ACCOUNT = "phi3standin"
VAULT = "phi3standin"
PROVIDERS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}/providers"
ACCOUNT_ID = f"{PROVIDERS}/Microsoft.Storage/storageAccounts/{ACCOUNT}"

MANAGEMENT_HOST = "management.azure.com"
LOGIN_HOST = "login.microsoftonline.com"
VAULT_HOST = f"{VAULT}.vault.azure.net"
API_HOST = f"{REGION}.api.azureml.ms"
BLOB_HOST = f"{ACCOUNT}.blob.core.windows.net"
METADATA_HOST = "169.254.169.254"
TLS_HOSTS = (MANAGEMENT_HOST, LOGIN_HOST, VAULT_HOST, API_HOST, BLOB_HOST)

BLOB_STORE = "workspaceblobstore"
ARTIFACT_STORE = "workspaceartifactstore"


def scope(workspace: str) -> str:
    """ARM id of a workspace."""
    return f"{PROVIDERS}/Microsoft.MachineLearningServices/workspaces/{workspace}"
