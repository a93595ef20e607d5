"""Folders of the user's in a container: uploaded once per content, for jobs to read."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from phi3_assets.azure import layout
from phi3_assets.azure.blobs import list_folder
from phi3_assets.azure.errors import retried
from phi3_assets.azure.transfer import upload_directory
from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import digest_of, fingerprint
from phi3_assets.resources.blob_publication import read_text
from phi3_assets.resources.execution import UserFiles

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient


def upload_user_files(container: "ContainerClient", prefix: str, name: str, files: UserFiles) -> str:
    """Upload a folder, unless its content is there; what marks it as whole is written last.

    Files may have been removed since, by a person or by a rule of the account, so they are counted.

    Args:
        container: The container.
        prefix: What all paths of `layout` stand below.
        name: Name of the input, for errors.
        files: The folder.

    Returns:
        Path of the folder below the prefix.

    Raises:
        UserError: The folder does not hold any more what it was when the step was planned.
    """
    path = layout.user_files(files.digest)
    marker = container.get_blob_client(f"{prefix}/{layout.user_files_marker(files.digest)}")
    if _is_there(container, f"{prefix}/{path}", marker):
        return path
    present = fingerprint(files.path, f"Input {name!r}")
    if digest_of(present) != files.digest:
        raise UserError(f"Input {name!r} at {files.path} changed while the step was starting or running. Run it again.")
    upload_directory(container, f"{prefix}/{path}", files.path, present)
    told = json.dumps({file: asdict(entry) for file, entry in present.items()})
    retried(lambda: marker.upload_blob(told, overwrite=True))
    return path


def _is_there(container: "ContainerClient", folder: str, marker: "BlobClient") -> bool:
    """Whether a folder holds what its marker says, by name and size."""
    marked = read_text(marker)
    if marked is None:
        return False
    promised = {path: entry["bytes"] for path, entry in json.loads(marked[0]).items()}
    return promised == {path: blob.bytes for path, blob in list_folder(container, folder).items()}
