"""Copies of sealed checkpoints in a folder that outlives the machine, such as a datastore that a job mounts.

Such a mount promises little: whole files written from beginning to end. So nothing here renames, appends, locks or
relies on fsync. A copy is a folder of its own, never written to twice, and its marker, written last, lists every file
with size and SHA-256; without a marker that fits, there is no copy.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from uuid import uuid4

import xxhash

from phi3_assets.core.files import FileEntry, hash_bytes, hash_file, open_file
from phi3_assets.core.sealing import SEAL, sealed_files

MARKER = "copied.json"
_PIECE_BYTES = 4 << 20


class SourceGone(Exception):
    """The checkpoint was removed while it was opened, as the trainer does with older ones."""


class Stopped(Exception):
    """Copying was given up, because nobody needs the copy any more."""


class NotWhole(Exception):
    """A copy, or a checkpoint to be copied, does not hold what it should."""


@dataclass(frozen=True)
class Copy:
    """A copy with a marker; whether its files are whole is found out when they are read.

    Attributes:
        folder: Where it is.
        step: Of the checkpoint.
        best: Name of the folder, beside this one, with the best checkpoint so far; "": this one, or there is none.
        files: What it holds.
    """

    folder: Path
    step: int
    best: str
    files: dict[str, FileEntry]

    @property
    def seal(self) -> str:
        """SHA-256 of the checkpoint's seal, which tells it from any other."""
        return self.files[SEAL].sha256


@dataclass(frozen=True)
class Source:
    """A sealed checkpoint whose files are open, so that it can be read to the end though the trainer removes it.

    Attributes:
        path: Where it was.
        seal: SHA-256 of its seal.
        files: The open files by name, the seal last.
        checksums: Size and XXH3-128 of each, as it was sealed.
    """

    path: Path
    seal: str
    files: dict[str, BufferedReader]
    checksums: dict[str, tuple[int, str]]


@contextmanager
def opened(checkpoint: Path) -> Iterator[Source]:
    """Open all files of a sealed checkpoint.

    Raises:
        SourceGone: It is being removed.
        NotWhole: Its seal is damaged.
    """
    with ExitStack() as stack:
        try:
            checksums = sealed_files(checkpoint / SEAL, checkpoint.name)
            files = {name: stack.enter_context(open_file(checkpoint / name)) for name in [*checksums, SEAL]}
        except FileNotFoundError:
            raise SourceGone(checkpoint.name) from None
        except ValueError as error:
            raise NotWhole(f"{checkpoint.name}: {error}") from None
        seal = hash_bytes(files[SEAL].read()).sha256
        files[SEAL].seek(0)
        yield Source(checkpoint, seal, files, checksums)


def write_copy(source: Source, step: int, best: str, into: Path, stopped: Callable[[], bool]) -> Copy:
    """Copy a checkpoint into a folder of its own below `into`, and mark it as whole.

    Args:
        source: The checkpoint.
        step: Its step.
        best: Name of the copy of the best checkpoint; see `Copy`.
        into: Folder of all copies; made if there is none.
        stopped: Asked between pieces.

    Raises:
        OSError: It could not be written; what was, is removed again.
        NotWhole: A file is not as it was sealed.
        Stopped: `stopped` said so.
    """
    folder = into / f"checkpoint-{step}-{uuid4().hex[:8]}"
    try:
        folder.mkdir(parents=True)
        files = {}
        for name, file in source.files.items():
            files[name], checksum = _write(file, folder / name, stopped)
            if name != SEAL and checksum != source.checksums[name]:
                raise NotWhole(f"{source.path.name}: {name} was changed")
        copy = Copy(folder, step, best, files)
        (folder / MARKER).write_text(_marker_text(copy), encoding="utf-8")
    except BaseException:
        # What is left of it would take room that a full datastore does not have.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return copy


def _write(file: BufferedReader, target: Path, stopped: Callable[[], bool]) -> tuple[FileEntry, tuple[int, str]]:
    sha256, xxh3, size = hashlib.sha256(), xxhash.xxh3_128(), 0
    target.parent.mkdir(exist_ok=True)
    with target.open("wb") as copy:
        while piece := file.read(_PIECE_BYTES):
            if stopped():
                raise Stopped
            copy.write(piece)
            sha256.update(piece)
            xxh3.update(piece)
            size += len(piece)
    return FileEntry(size, sha256.hexdigest()), (size, xxh3.hexdigest())


def folders_in(folder: Path) -> list[Path]:
    """Folders of copies, whole or half.

    Raises:
        OSError: It cannot be listed. Path.glob would take a mount that does not answer for an empty folder.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    return [folder / name for name in names if re.fullmatch(r"checkpoint-\d+-[0-9a-f]{8}", name)]


def copies_in(folder: Path) -> list[Copy]:
    """All copies that have a marker, the newest first.

    Raises:
        OSError: The folder cannot be listed, or a marker cannot be read.
    """
    copies = (_read_marker(path) for path in folders_in(folder))
    return sorted((copy for copy in copies if copy), key=lambda copy: copy.step, reverse=True)


def lay_out(copy: Copy, target: Path) -> None:
    """Copy it back, as the checkpoint that it was; the seal comes last.

    Raises:
        NotWhole: A file is missing, cut off, changed, or cannot be read.
    """
    for name, entry in copy.files.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open_file(copy.folder / name) as file:
                _write(file, path, lambda: False)
        except FileNotFoundError:
            raise NotWhole(f"{name} is missing") from None
        except OSError as error:
            raise NotWhole(f"{name} cannot be read or laid out ({error})") from error
        if hash_file(path) != entry:
            raise NotWhole(f"{name} is cut off or was changed")


def remove(path: Path) -> None:
    """Remove a copy, whole or half; the marker first, so that what a kill leaves of it is none."""
    (path / MARKER).unlink(missing_ok=True)
    shutil.rmtree(path)


def _marker_text(copy: Copy) -> str:
    files = {name: [entry.bytes, entry.sha256] for name, entry in copy.files.items()}
    text = json.dumps({"step": copy.step, "best": copy.best, "files": files})
    return f"{text}\n{_digest(text)}\n"


def _read_marker(folder: Path) -> Copy | None:
    """None: there is no marker, or it was cut off or changed, so that this is no copy."""
    try:
        text, _, rest = (folder / MARKER).read_text(encoding="utf-8").partition("\n")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    if rest.strip() != _digest(text):
        return None
    value = json.loads(text)
    files = {name: FileEntry(size, sha256) for name, (size, sha256) in value["files"].items()}
    return Copy(folder, value["step"], value["best"], files)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
