"""Directories to and from a container: in parallel, in constant memory, verified, and going on where it was cut off.

The service compares each piece that is sent with its MD5, and both ways the whole file is compared with the SHA-256
that is known beforehand, so what arrives is what was sealed. Of an upload that was cut off, files and blocks that
arrived are kept; of a download, what was written.
"""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_assets.azure.blobs import SHA256, BlobEntry, list_folder, url_of
from phi3_assets.azure.errors import retried
from phi3_assets.azure.parallel import Transfer
from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.files import FileEntry, hash_file, list_files, open_file, what_it_is

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

PIECE_BYTES = 8 << 20
_MOST_BLOCKS = 50_000  # of one blob: the service's limit


def upload_directory(
    container: "ContainerClient", folder: str, directory: Path, files: Mapping[str, FileEntry]
) -> None:
    """Make the files of a directory blobs below a folder; those that are there with the same content stay.

    Args:
        container: The container.
        folder: Path in the container.
        directory: Where the files are.
        files: What they must hold, by POSIX path below the directory.

    Raises:
        DamagedArtefact: A file does not hold what it should; no blob is made of it.
        azure.core.exceptions.AzureError: The service refused, or was away for too long.
    """
    there = list_folder(container, folder, unfinished=True)

    def upload(path: str) -> None:
        entry, known = files[path], there.get(path)
        if known is not None and known.is_whole and (known.bytes, known.sha256) == (entry.bytes, entry.sha256):
            return
        blob = container.get_blob_client(f"{folder}/{path}")
        if entry.bytes <= PIECE_BYTES:
            _upload_small(blob, directory / path, entry)
        else:
            _upload_large(transfer, blob, directory / path, entry, known)

    with Transfer() as transfer:
        transfer.each(_large_first(files), upload)


def download_directory(
    container: "ContainerClient", folder: str, directory: Path, files: Mapping[str, FileEntry]
) -> None:
    """Make a directory hold exactly these files of a folder in a container; what it has of them already is kept.

    It is whole only when this returns, so it should be one that nobody looks for yet.

    Args:
        container: The container.
        folder: Path in the container.
        directory: What is to hold them; need not exist.
        files: What they must hold, by POSIX path below the folder.

    Raises:
        DamagedArtefact: A blob is missing, or does not hold what it should.
        azure.core.exceptions.AzureError: The service refused, or was away for too long.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for path in set(list_files(directory)) - files.keys():
        (directory / path).unlink()
    download_files(container, folder, directory, files)


def download_files(container: "ContainerClient", folder: str, directory: Path, files: Mapping[str, FileEntry]) -> None:
    """`download_directory`, but what else the directory holds is left alone."""
    for path in files:
        if path.startswith("/") or ".." in path.split("/"):
            raise damaged(container.get_blob_client(f"{folder}/{path}"), "leads out of its folder")
    for parent in {(directory / path).parent for path in files}:
        parent.mkdir(parents=True, exist_ok=True)

    def download(path: str) -> None:
        blob = container.get_blob_client(f"{folder}/{path}")
        if entry_is(directory / path, files[path]):
            return
        if files[path].bytes <= PIECE_BYTES:
            _download_small(blob, directory / path, files[path])
        else:
            _download_large(transfer, blob, directory / path, files[path])

    with Transfer() as transfer:
        transfer.each(_large_first(files), download)


def proves(container: "ContainerClient", name: str, entry: FileEntry) -> bool:
    """Whether a blob's bytes are what they should be, read from beginning to end and kept nowhere."""
    blob = container.get_blob_client(name)
    digest = hashlib.sha256()
    with Transfer() as transfer:
        for content in transfer.in_order(iter(range(0, entry.bytes, PIECE_BYTES)), lambda at: _piece(blob, entry, at)):
            digest.update(content)
    return digest.hexdigest() == entry.sha256


def entry_is(path: Path, entry: FileEntry) -> bool:
    """Whether a file is there and holds this."""
    try:
        return not what_it_is(path) and path.stat().st_size == entry.bytes and hash_file(path) == entry
    except FileNotFoundError:
        return False


def damaged(blob: "BlobClient", problem: str) -> DamagedArtefact:
    """What is said of a blob that is not what it should be."""
    return DamagedArtefact(
        f"{url_of(blob)} {problem}. Delete the artefact's directory in the container and materialise it again."
    )


def _upload_small(blob: "BlobClient", path: Path, entry: FileEntry) -> None:
    with open_file(path) as file:
        content = file.read(PIECE_BYTES + 1)
    _refuse_other(path, entry, len(content), hashlib.sha256(content).hexdigest())
    headers = _md5_header(hashlib.md5(content, usedforsecurity=False).digest())
    retried(lambda: blob.upload_blob(content, overwrite=True, metadata={SHA256: entry.sha256}, headers=headers))


def _upload_large(
    transfer: Transfer, blob: "BlobClient", path: Path, entry: FileEntry, known: BlobEntry | None
) -> None:
    from azure.storage.blob import BlobBlock

    staged: set[str] = set()
    if known is not None:
        _, waiting = retried(lambda: blob.get_block_list("all"))
        staged = {block.id for block in waiting}
    digest = hashlib.sha256()
    size = 0

    def pieces() -> Iterator[tuple[int, bytes]]:
        nonlocal size
        number = 0
        with open_file(path) as file:
            while piece := file.read(max(PIECE_BYTES, -(-entry.bytes // _MOST_BLOCKS))):
                digest.update(piece)
                size += len(piece)
                yield number, piece
                number += 1

    def stage(numbered: tuple[int, bytes]) -> str:
        number, piece = numbered
        md5 = hashlib.md5(piece, usedforsecurity=False).digest()
        # Named by what it holds, so that a block of an upload that was cut off is known again.
        block = f"{number:05d}-{md5.hex()}"
        if block not in staged:
            retried(lambda: blob.stage_block(block, piece, headers=_md5_header(md5)))
        return block

    blocks = [BlobBlock(block) for block in transfer.in_order(pieces(), stage)]
    _refuse_other(path, entry, size, digest.hexdigest())
    retried(lambda: blob.commit_block_list(blocks, metadata={SHA256: entry.sha256}))


def _download_small(blob: "BlobClient", path: Path, entry: FileEntry) -> None:
    content = _read(blob)
    if (len(content), hashlib.sha256(content).hexdigest()) != (entry.bytes, entry.sha256):
        raise damaged(blob, "was changed: its SHA-256 differs")
    path.write_bytes(content)


def _download_large(transfer: Transfer, blob: "BlobClient", path: Path, entry: FileEntry) -> None:
    had = _append(transfer, blob, path, entry)
    if had is None:
        return
    path.unlink()
    # What was there from before was something else, or the blob is.
    if had == 0 or _append(transfer, blob, path, entry) is not None:
        path.unlink(missing_ok=True)
        raise damaged(blob, "was changed: its SHA-256 differs")


def _append(transfer: Transfer, blob: "BlobClient", path: Path, entry: FileEntry) -> int | None:
    """Write what is missing at the end of a file; None if it then is what it should be, else how much was there.

    A file is written from its beginning on, without holes, so its size says how far an earlier download came.
    """
    digest = hashlib.sha256()
    with path.open("a+b") as file:
        file.seek(0)
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
        had = file.tell()
        ranges = iter(range(had, entry.bytes, PIECE_BYTES))
        for content in transfer.in_order(ranges, lambda at: _piece(blob, entry, at)):
            digest.update(content)
            file.write(content)
        size = file.tell()
    return None if (size, digest.hexdigest()) == (entry.bytes, entry.sha256) else had


def _piece(blob: "BlobClient", entry: FileEntry, start: int) -> bytes:
    return _read(blob, offset=start, length=min(PIECE_BYTES, entry.bytes - start))


def _read(blob: "BlobClient", **where: int) -> bytes:
    from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

    try:
        return bytes(retried(lambda: blob.download_blob(**where).readall()))
    except ResourceNotFoundError as error:
        if error.error_code != "BlobNotFound":
            raise
        raise damaged(blob, "is missing") from error
    except HttpResponseError as error:
        if error.status_code != 416:
            raise
        raise damaged(blob, "is shorter than its manifest says") from error


def _refuse_other(path: Path, entry: FileEntry, size: int, sha256: str) -> None:
    if (size, sha256) != (entry.bytes, entry.sha256):
        raise DamagedArtefact(
            f"{path} was changed while it was uploaded: its SHA-256 differs from its manifest's. Materialise it again."
        )


def _md5_header(md5: bytes) -> dict[str, Any]:
    return {"Content-MD5": base64.b64encode(md5).decode()}


def _large_first(files: Mapping[str, FileEntry]) -> list[str]:
    """So that none of them is begun when everything else is done."""
    return sorted(files, key=lambda path: -files[path].bytes)
