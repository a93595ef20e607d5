"""The home's copies of what stands in a container: where the local store has artefacts, so that tools find them there.

A copy is whole or not there, and verified byte by byte when it is made. One that is damaged later is mended: only what
differs is fetched again. Files are not flushed to the disk one by one, for after a power cut they can be had again.
"""

import shutil
import uuid
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets.azure.transfer import download_directory, download_files
from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.files import write_atomically
from phi3_assets.core.home import SHORT
from phi3_assets.core.locks import Holder, locked
from phi3_assets.core.manifest import MANIFEST, Manifest, read_manifest, verify
from phi3_assets.resources.blob_publication import Published
from phi3_assets.resources.store import PEEKED_BYTES

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

# Folders below model-cache: downloads that are under way, and the small files of artefacts.
FETCHING = "fetching"
PEEKED = "peeked"


def is_copy(directory: Path, manifest: Manifest, *, content: bool) -> bool:
    """Whether a directory is a copy of this artefact: its files' sizes, and with `content` every byte."""
    try:
        here = read_manifest(directory)
        verify(directory, here, content=content)
    except (FileNotFoundError, DamagedArtefact):
        return False
    return here.ref == manifest.ref


def fetch_copy(
    container: "ContainerClient", published: Published, directory: Path, cache: Path, *, content: bool
) -> None:
    """Make a directory a copy of an artefact, unless it is one.

    Args:
        container: The container.
        published: The artefact.
        directory: Where it is to be.
        cache: The home's `model-cache`.
        content: Compare every byte of a copy that is there.

    Raises:
        DamagedArtefact: It is damaged in the container.
    """
    manifest = published.manifest
    if is_copy(directory, manifest, content=content):
        return
    coming = cache / FETCHING / manifest.call.step / manifest.call.identity[:SHORT]
    with locked(coming.with_name(f"{coming.name}.lock"), _holder(manifest)):
        if is_copy(directory, manifest, content=content):  # another process was faster
            return
        if (directory / MANIFEST).exists() and not coming.exists():
            coming.parent.mkdir(parents=True, exist_ok=True)
            directory.rename(coming)  # what is whole of it need not be fetched
        download_directory(container, published.folder, coming, manifest.files)
        write_atomically(coming / MANIFEST, manifest.to_json())
        take_the_place(coming, directory)


def peek_copy(
    container: "ContainerClient", published: Published, directory: Path, cache: Path, files: Collection[str]
) -> Path:
    """A directory that holds an artefact's small files and these; the whole copy where there is one."""
    manifest = published.manifest
    if is_copy(directory, manifest, content=False):
        return directory
    peeked = cache / PEEKED / manifest.call.step / manifest.call.identity[:SHORT]
    wanted = {path: entry for path, entry in manifest.files.items() if entry.bytes <= PEEKED_BYTES or path in files}
    with locked(peeked.with_name(f"{peeked.name}.lock"), _holder(manifest)):
        download_files(container, published.folder, peeked, wanted)
    return peeked


def take_the_place(finished: Path, directory: Path) -> None:
    """Put a finished directory where another may be; one that is no artefact is moved aside, for it may be a person's.

    Readers find one or the other, or for an instant neither.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    if directory.exists():
        is_artefact = (directory / MANIFEST).exists()
        aside = directory.with_name(
            f"{'.gone-' if is_artefact else f'{directory.name}.no-manifest-'}{uuid.uuid4().hex[:8]}"
        )
        directory.rename(aside)
        if is_artefact:
            shutil.rmtree(aside)
    finished.rename(directory)


def _holder(manifest: Manifest) -> Holder:
    return Holder(making=f"a copy of {manifest.call.step} {manifest.call.identity[:SHORT]}")
