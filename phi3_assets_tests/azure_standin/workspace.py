"""One workspace: its containers and what has been registered in it."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from phi3_assets_tests.azure_standin.names import ARTIFACT_STORE, BLOB_STORE, scope

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient, ContainerClient

    from phi3_assets_tests.azure_standin.computes import Nodes
    from phi3_assets_tests.azure_standin.job import Job


class Workspace:
    """What the routes read and write.

    Attributes:
        name: Its name.
        scope: Its ARM id.
        key: The storage account's key, which shared access signatures are made with.
        containers: The datastores' containers, by datastore.
        assets: Code, environments, data and models, by kind, name and version.
        jobs: Jobs by name.
        nodes: The computes' nodes.
        lock: Held while a job's name is looked up and taken.
        launch: Starts a job.
        core_limit: Most cores that any quota allows.
        hang_cancels: Jobs that are cancelled from now on stay CancelRequested.
    """

    def __init__(
        self, name: str, blobs: "BlobServiceClient", key: str, nodes: "Nodes", launch: Callable[["Job"], None]
    ) -> None:
        """A new one, with empty containers."""
        self.name = name
        self.scope = scope(name)
        self.key = key
        self.blobs = blobs
        self.containers: dict[str, ContainerClient] = {
            BLOB_STORE: blobs.create_container(f"azureml-blobstore-{name}"),
            ARTIFACT_STORE: blobs.create_container(f"azureml-{name}"),
        }
        self.assets: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.jobs: dict[str, Job] = {}
        self.nodes = nodes
        self.lock = threading.Lock()
        self.launch = launch
        self.hang_cancels = False
        self.core_limit = 1000
        self._uploads: list[str] = []

    def add_container(self, name: str) -> str:
        """Another container, that goes when the workspace goes; its name."""
        self.blobs.create_container(name)
        self._uploads.append(name)
        return name

    def close(self) -> None:
        """Kill its jobs and delete its containers."""
        for job in self.jobs.values():
            job.kill()
        for job in self.jobs.values():
            job.wait_closed()
        for container in self.containers.values():
            container.delete_container()
        for name in self._uploads:
            self.blobs.delete_container(name)
