"""One workspace: its containers and what has been registered in it."""

from typing import TYPE_CHECKING

from phi3_assets_tests.azure_standin.names import ARTIFACT_STORE, BLOB_STORE, scope

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient, ContainerClient


class Workspace:
    """What the routes read and write."""

    def __init__(self, name: str, blobs: "BlobServiceClient", key: str) -> None:
        """A new one, with empty containers.

        Args:
            name: Its name.
            blobs: The storage account.
            key: The storage account's key, which shared access signatures are made with.
        """
        self.name = name
        self.scope = scope(name)
        self.key = key
        self.containers: dict[str, ContainerClient] = {
            BLOB_STORE: blobs.create_container(f"azureml-blobstore-{name}"),
            ARTIFACT_STORE: blobs.create_container(f"azureml-{name}"),
        }

    def close(self) -> None:
        """Delete its containers."""
        for container in self.containers.values():
            container.delete_container()
