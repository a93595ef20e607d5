"""The one blob that makes an attempt the artefact: reading it, and being the first to write it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from phi3_assets.azure import layout
from phi3_assets.azure.blobs import if_there, list_folder, remove_blobs, remove_folder, url_of
from phi3_assets.azure.errors import retried
from phi3_assets.azure.transfer import damaged
from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.manifest import MANIFEST, Manifest
from phi3_assets.resources.blob_listing import compare, to_json

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient


@dataclass(frozen=True)
class Published:
    """An artefact in a container.

    Attributes:
        manifest: Its manifest.
        attempt: Name of the attempt that it is.
        folder: Path in the container of its files.
    """

    manifest: Manifest
    attempt: str
    folder: str


def read_published(container: "ContainerClient", prefix: str, kind: str, identity: str) -> Published | None:
    """The artefact of an identity; its files are not looked at.

    Args:
        container: The container.
        prefix: What all paths of `layout` stand below.
        kind: Name of the step.
        identity: 64 hex digits.

    Raises:
        DamagedArtefact: The blob is no manifest, or another's.
    """
    blob = container.get_blob_client(f"{prefix}/{layout.manifest(kind, identity)}")
    found = read_text(blob)
    if found is None:
        return None
    text, metadata = found
    manifest, attempt = Manifest.from_json(text, url_of(blob)), metadata.get(layout.ATTEMPT, "")
    if manifest.call.identity != identity or not attempt:
        raise damaged(blob, f"is of identity {manifest.call.identity}, attempt {attempt or 'unknown'}")
    return Published(manifest, attempt, f"{prefix}/{layout.attempt(kind, identity, attempt)}")


def publish_attempt(
    container: "ContainerClient",
    prefix: str,
    manifest: Manifest,
    attempt: str,
    verified: Callable[[], None] = lambda: None,
) -> Manifest:
    """Make an attempt that is uploaded the artefact, and remove all others; itself, if another is the artefact already.

    Args:
        container: The container.
        prefix: What all paths of `layout` stand below.
        manifest: The attempt's.
        attempt: Its name.
        verified: Called when its files are known to be what the manifest says, before it is the artefact.

    Returns:
        The manifest of whichever is.

    Raises:
        DamagedArtefact: The files of the attempt are not what the manifest says.
    """
    from azure.core.exceptions import ResourceExistsError

    kind, identity = manifest.call.step, manifest.call.identity
    folder = f"{prefix}/{layout.attempt(kind, identity, attempt)}"
    kept = f"{prefix}/{layout.listing(kind, identity, attempt)}"
    blob = container.get_blob_client(f"{prefix}/{layout.manifest(kind, identity)}")
    try:
        listing = to_json(compare(container, folder, manifest))
        verified()
        retried(lambda: container.upload_blob(kept, listing, overwrite=True))
        retried(lambda: blob.upload_blob(manifest.to_json(), metadata={layout.ATTEMPT: attempt}))
    except (ResourceExistsError, DamagedArtefact):
        made = read_published(container, prefix, kind, identity)
        if made is None:
            raise
        if made.attempt != attempt:  # else the answer was lost, and azure-core asked again
            remove_folder(container, folder)
            remove_blobs(container, [kept])
        return made.manifest
    _remove_others(container, f"{prefix}/{layout.artefact(kind, identity)}", attempt)
    return manifest


def _remove_others(container: "ContainerClient", folder: str, attempt: str) -> None:
    """Remove what other attempts left, as when they were killed; one that is under way has lost already."""
    own = (MANIFEST, f"{attempt}.json")
    found = list_folder(container, folder)
    remove_blobs(
        container,
        [f"{folder}/{path}" for path in found if path not in own and not path.startswith(f"{attempt}/")],
    )


def read_text(blob: "BlobClient") -> tuple[str, dict[str, str]] | None:
    """A small blob's text and metadata; None if it is not there."""

    def read() -> tuple[str, dict[str, str]]:
        download = blob.download_blob()
        return download.readall().decode(), download.properties.metadata or {}

    return if_there(read)
