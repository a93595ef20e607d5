"""Is an artefact in a container what its manifest says? Told by what the service lists, without reading it.

A listing has sizes. At publication it is kept, and with it ETags and Content-MD5: a blob of which either is as it was
has not been written since.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from phi3_assets.azure.blobs import BlobEntry, if_there, list_folder
from phi3_assets.azure.transfer import damaged, proves
from phi3_assets.core.manifest import MANIFEST, Manifest

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


def compare(container: "ContainerClient", folder: str, manifest: Manifest) -> dict[str, BlobEntry]:
    """Compare names and sizes of a folder's blobs with a manifest, and the SHA-256 that they were uploaded with.

    Returns:
        The listing, without the manifest.

    Raises:
        DamagedArtefact: Names the first blob that is missing, extra, or another one.
    """
    listing = {path: blob for path, blob in list_folder(container, folder).items() if path != MANIFEST}
    for path in sorted(manifest.files.keys() ^ listing.keys()):
        problem = "is missing" if path in manifest.files else "is not in the manifest"
        raise damaged(container.get_blob_client(f"{folder}/{path}"), problem)
    for path, entry in sorted(manifest.files.items()):
        found = listing[path]
        if found.bytes != entry.bytes:
            problem = f"has {found.bytes} bytes, its manifest says {entry.bytes}"
        elif found.sha256 not in ("", entry.sha256):
            problem = "was changed: it was uploaded with another SHA-256"
        else:
            continue
        raise damaged(container.get_blob_client(f"{folder}/{path}"), problem)
    return listing


def to_json(listing: Mapping[str, BlobEntry]) -> bytes:
    """What is kept of a listing."""
    return json.dumps({path: asdict(blob) for path, blob in listing.items()}).encode()


def prove(container: "ContainerClient", kept: str, folder: str, manifest: Manifest) -> None:
    """Prove that no byte was changed since publication.

    Where neither ETag nor Content-MD5 is as it was, as after the container was copied, the blob is read.

    Args:
        container: The container.
        kept: Path of the listing that was kept.
        folder: Path of the artefact's files.
        manifest: Its manifest.

    Raises:
        DamagedArtefact: Names the first blob that was changed.
    """
    listing = compare(container, folder, manifest)
    before = _kept(container, kept)
    for path, entry in sorted(manifest.files.items()):
        was, now = before.get(path), listing[path]
        if was is not None and (now.etag == was.etag or (now.md5 and now.md5 == was.md5)):
            continue
        name = f"{folder}/{path}"
        if (was is not None and now.md5 and was.md5) or not proves(container, name, entry):
            raise damaged(container.get_blob_client(name), "was changed since it was published")


def _kept(container: "ContainerClient", name: str) -> dict[str, BlobEntry]:
    """A listing that was kept; nothing where it is gone or damaged, so that the blobs are read."""
    text = if_there(lambda: container.download_blob(name).readall())
    try:
        return {path: BlobEntry(**blob) for path, blob in json.loads(text or b"{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}
