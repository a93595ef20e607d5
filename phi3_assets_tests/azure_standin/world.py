"""Everything that there is in the stand-in's Azure at the moment."""

import base64
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets_tests.azure_standin.faults import Faults
from phi3_assets_tests.azure_standin.names import ACCOUNT
from phi3_assets_tests.azure_standin.tokens import Tokens
from phi3_assets_tests.azure_standin.traffic import Traffic
from phi3_assets_tests.azure_standin.workspace import Workspace

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient


class World:
    """The token service, the storage account, and one workspace at a time."""

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet.

        Args:
            folder: For certificates, logs and jobs.
        """
        self.folder = folder
        self.marker = f"standin-{os.getpid()}-"
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        named = os.environ.get("PHI3_AZURE_TRAFFIC")
        self.traffic = Traffic(Path(named) if named else None)
        self.faults = Faults()
        self.tokens = Tokens()
        self.blobs: BlobServiceClient
        self.workspace: Workspace
        self._count = 0

    def open_storage(self, port: int, authority: Path) -> None:
        """Connect to Azurite's port, with the account's key and around the door: never recorded, never failed."""
        from azure.storage.blob import BlobServiceClient

        self.blobs = BlobServiceClient(
            f"https://127.0.0.1:{port}/{ACCOUNT}", credential=self.key, connection_verify=str(authority)
        )

    def reset(self) -> str:
        """Forget faults, traffic and the workspace with all that is in it, and make another; its name."""
        self.faults.clear()
        self.traffic.clear()
        self.tokens.lifetime_s = 3600
        if self._count:
            self.workspace.close()
        self._count += 1
        self.workspace = Workspace(f"standin-{self._count}", self.blobs, self.key)
        return self.workspace.name
