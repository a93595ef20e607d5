"""The ledger as blobs, one a key: written if the ETag is the one that was read."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from phi3_assets.azure.blobs import if_there, url_of
from phi3_assets.azure.errors import readable, retried
from phi3_assets.core.ledger import Ledger, LedgerConflict, Value, check_key

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

# Blob metadata: of which write this is the content.
_WRITE = "write"


class BlobLedger(Ledger):
    """Values in a container; the service decides which of two writers was first."""

    def __init__(self, container: "Callable[[], ContainerClient]", folder: str) -> None:
        """Values stand below `folder` of the container, which is asked for when it is needed."""
        self._container = container
        self._folder = folder

    def read(self, key: str) -> Value | None:
        """See `Ledger.read`."""
        blob = self._blob(key)

        def read() -> Value:
            download = blob.download_blob()
            return Value(bytes(download.readall()), str(download.properties.etag))

        with readable(f"Ledger {url_of(blob)}"):
            return if_there(read)

    def write(self, key: str, content: bytes, unchanged: str | None) -> str:
        """See `Ledger.write`."""
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError

        blob = self._blob(key)
        condition: dict[str, Any] = {"overwrite": False}
        if unchanged is not None:
            condition = {"overwrite": True, "etag": unchanged, "match_condition": MatchConditions.IfNotModified}
        this = uuid4().hex
        with readable(f"Ledger {url_of(blob)}"):
            try:
                written = retried(lambda: blob.upload_blob(content, metadata={_WRITE: this}, **condition))
                return str(written["etag"])
            except (ResourceExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
                if getattr(error, "error_code", "") == "ContainerNotFound":
                    raise
                # It may be our own: the answer was lost, and azure-core asked again.
                return self._version_of(blob, this)

    def remove(self, key: str) -> None:
        """See `Ledger.remove`."""
        blob = self._blob(key)
        with readable(f"Ledger {url_of(blob)}"):
            if_there(blob.delete_blob)

    def keys(self, prefix: str) -> list[str]:
        """See `Ledger.keys`."""
        start = f"{self._folder}/"
        with readable(f"Ledger {self.where(prefix)}"):
            found = retried(lambda: list(self._container().list_blob_names(name_starts_with=f"{start}{prefix}")))
        return sorted(name.removeprefix(start) for name in found)

    def where(self, key: str) -> str:
        """See `Ledger.where`."""
        return f"{url_of(self._container())}/{self._folder}/{key}"

    def _version_of(self, blob: "BlobClient", write: str) -> str:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            present = retried(blob.get_blob_properties)
        except ResourceNotFoundError:
            present = None
        if present is None or present.metadata.get(_WRITE) != write:
            raise LedgerConflict(f"{url_of(blob)} was written by somebody else.")
        return str(present.etag)

    def _blob(self, key: str) -> "BlobClient":
        return self._container().get_blob_client(f"{self._folder}/{check_key(key)}")
