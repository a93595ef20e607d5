"""What every answer about a resource of a workspace has in common."""

import datetime
from typing import Any

from phi3_assets_tests.azure_standin.workspace import Workspace

PROVIDER = "Microsoft.MachineLearningServices/workspaces"


def now() -> str:
    """This moment, as the service writes it."""
    return datetime.datetime.now(datetime.UTC).isoformat()


def resource(workspace: Workspace, path: str, properties: dict[str, Any], created_at: str = "") -> dict[str, Any]:
    """A resource as it is sent.

    Args:
        workspace: Where it is.
        path: Its address below the workspace, such as jobs/abc or codes/x/versions/1.
        properties: Its own part.
        created_at: When it was made; empty: now.
    """
    parts = path.split("/")
    return {
        "id": f"{workspace.scope}/{path}",
        "name": parts[-1],
        "type": "/".join([PROVIDER, *parts[::2]]),
        "properties": properties,
        "systemData": {"createdAt": created_at or now(), "createdBy": "standin", "createdByType": "Application"},
    }
