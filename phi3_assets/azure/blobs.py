"""What stands below a folder of a container: listing it, and removing it. The bytes are moved by `transfer`."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from phi3_assets.azure.errors import retried

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

# Blob metadata: SHA-256 of the content in hex, as it was when it was read to be uploaded.
SHA256 = "sha256"
DELETED_AT_ONCE = 8
# Accounts with a hierarchical namespace list folders as empty blobs that have this metadata.
_FOLDER = "hdi_isfolder"

T = TypeVar("T")


@dataclass(frozen=True)
class BlobEntry:
    """One blob as the service lists it.

    Attributes:
        bytes: Its size.
        etag: Another one after every write.
        md5: Content-MD5 in hex, if the service has it: it computes it for what came in one piece.
        sha256: From its metadata, if it has any.
        is_whole: Whether its blocks were committed; else only some blocks are there.
    """

    bytes: int
    etag: str
    md5: str = ""
    sha256: str = ""
    is_whole: bool = True


def url_of(client: "BlobClient | ContainerClient") -> str:
    """Its address without what may be a secret."""
    return str(client.url).partition("?")[0]


def if_there(action: Callable[[], T]) -> T | None:
    """What an action on a blob gives, tried again where that may help; None: there is no such blob.

    A container that is gone is an error.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return retried(action)
    except ResourceNotFoundError as error:
        if error.error_code != "BlobNotFound":
            raise
        return None


def list_folder(container: "ContainerClient", folder: str, *, unfinished: bool = False) -> dict[str, BlobEntry]:
    """Every blob below a folder, by its path below it.

    Args:
        container: The container.
        folder: Path of the folder in the container.
        unfinished: Also blobs of which only blocks are there.
    """
    prefix = f"{folder.strip('/')}/"
    include = ["metadata", "uncommittedblobs"] if unfinished else ["metadata"]

    def listed() -> dict[str, BlobEntry]:
        found = {}
        for blob in container.list_blobs(name_starts_with=prefix, include=include):
            metadata = blob.metadata or {}
            if _FOLDER not in metadata:
                md5 = blob.content_settings.content_md5
                found[blob.name.removeprefix(prefix)] = BlobEntry(
                    blob.size or 0,
                    blob.etag or "",
                    bytes(md5).hex() if md5 else "",
                    metadata.get(SHA256, ""),
                    is_whole=bool(blob.etag),
                )
        return found

    return retried(listed)


def remove_folder(container: "ContainerClient", folder: str) -> None:
    """Delete every blob below a folder."""
    paths = list_folder(container, folder)
    remove_blobs(container, (f"{folder.strip('/')}/{path}" for path in paths))


def remove_blobs(container: "ContainerClient", names: Iterable[str]) -> None:
    """Delete blobs; one that is gone already is no error."""
    from azure.core.exceptions import ResourceNotFoundError

    def remove(name: str) -> None:
        try:
            retried(lambda: container.delete_blob(name))
        except ResourceNotFoundError:
            return

    with ThreadPoolExecutor(DELETED_AT_ONCE) as pool:
        list(pool.map(remove, names))
