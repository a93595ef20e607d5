"""Everything that there is in the stand-in's Azure at the moment."""

import base64
import os
import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets_tests.azure_standin.computes import Nodes
from phi3_assets_tests.azure_standin.faults import Faults
from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.names import ACCOUNT
from phi3_assets_tests.azure_standin.network import network_variables
from phi3_assets_tests.azure_standin.runner import Runner
from phi3_assets_tests.azure_standin.tokens import HOUR_S, Tokens
from phi3_assets_tests.azure_standin.traffic import Traffic
from phi3_assets_tests.azure_standin.workspace import Workspace

if TYPE_CHECKING:
    pass


class World:
    """The token service, the key vault, the storage account, and one workspace at a time.

    Attributes:
        folder: For certificates, logs and jobs.
        marker: What the host names of everything that is started begin with.
        key: The storage account's key.
        secrets: What is in the key vault.
        workspace: The workspace; any other name is not found.
    """

    workspace: Workspace

    def __init__(self, folder: Path) -> None:
        """Nothing runs yet."""
        self.folder = folder
        self.marker = f"standin-{os.getpid()}-"
        self.key = base64.b64encode(secrets.token_bytes(64)).decode()
        named = os.environ.get("PHI3_AZURE_TRAFFIC")
        self.traffic = Traffic(Path(named) if named else None)
        self.faults = Faults()
        self.tokens = Tokens()
        self.secrets: dict[str, str] = {}
        self._workspaces = self._jobs = 0

    def open(self, storage_port: int, authority: Path, open_door: Callable[[str], socket.socket]) -> None:
        """Connect to Azurite, with the account's key and around the door: never recorded, never failed.

        Args:
            storage_port: Azurite's port.
            authority: Certificate of the authority.
            open_door: Opens a door for a job.
        """
        from azure.storage.blob import BlobServiceClient

        self._authority, self._open_door = authority, open_door
        self._blobs: BlobServiceClient = BlobServiceClient(
            f"https://127.0.0.1:{storage_port}/{ACCOUNT}", credential=self.key, connection_verify=str(authority)
        )

    def reset(self) -> str:
        """Forget everything that was ordered, made and said, and make another workspace; its name."""
        self.faults.clear()
        self.tokens.lifetime_s = HOUR_S
        self.secrets.clear()
        if self._workspaces:
            self.workspace.close()
        self.traffic.clear()
        self._workspaces += 1
        self.workspace = Workspace(f"standin-{self._workspaces}", self._blobs, self.key, Nodes(), self._launch)
        return self.workspace.name

    def _launch(self, job: Job) -> None:
        self._jobs += 1
        Runner(
            self.workspace,
            job,
            self.folder / "jobs" / str(self._jobs),
            f"{self.marker}{self._jobs}-",
            self._open_door,
            lambda port: network_variables(port, self._authority),
            self.traffic.own_fault,
        ).start()
