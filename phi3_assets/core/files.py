"""Files: what counts in a folder, reading without surprises, hashing, and writing that is whole or not at all.

Folders come from users, other machines and archives, so a name may be a pipe that never ends, a device, or a link to
somebody's key. Nothing here opens what is not a plain file.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from phi3_assets.core.errors import UserError

DATASETS = "datasets"
"""Name of the input that is a dataset folder."""
# What Finder and Explorer write into every folder they show.
DESKTOP_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
DATA_FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".xls": "xls",
    ".xlsb": "xlsb",
    ".ods": "ods",
}
"""Format of a data file by its ending; `.gz` may follow."""
MAX_JSON_BYTES = 64 << 20
"""Largest JSON document that is read whole. A tokenizer of 256,000 words takes 35 MB; no other comes near."""
_LEFTOVER_S = 3600
"""A temporary file as old as this belongs to a process that was killed: the writes take milliseconds."""


@dataclass(frozen=True)
class FileEntry:
    """One file: size in bytes and SHA-256 in hex."""

    bytes: int
    sha256: str


def what_it_is(path: Path) -> str:
    """What stands at a path, for errors: "a link", "a pipe (FIFO)", ...; "" for a plain file or a folder."""
    mode = path.lstat().st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    kinds = {
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe (FIFO)",
        stat.S_IFSOCK: "a socket",
        stat.S_IFBLK: "a device",
        stat.S_IFCHR: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no plain file")


def list_files(directory: Path) -> list[str]:
    """POSIX paths of everything below `directory` that is not a folder, sorted: files, links (also to folders), pipes.

    Raises:
        OSError: A folder cannot be listed.
    """
    return sorted(path for path, _ in _scan(str(directory)))


def _scan(folder: str, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Everything below a folder that is not a folder, and whether it is a plain file.

    As text, and by what a listing says of itself: paths, and a look at each, would take 100,000 files three seconds.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _scan(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.is_file(follow_symlinks=False)


def user_files(directory: Path, what: str) -> list[str]:
    """The files that count in a folder that is not ours: the one rule for who reads, hashes or watches it.

    Left out are names that start with "." or "_" (editors, copying tools and Spark keep their own there), also as
    folders, and what desktops write. Whatever else is no plain file is refused and not left out: a user who put it
    there takes it for data. A link is as good as a file as long as it stays in the folder.

    Args:
        directory: The folder.
        what: How errors name it, such as "Dataset folder".

    Returns:
        POSIX paths below the folder, sorted.

    Raises:
        UserError: Names what is not a plain file, cannot be listed, or has a name that is not UTF-8.
    """
    return [path for path, plain in _visible(directory, what) if _counts(directory, path, what, plain=plain)]


def _visible(directory: Path, what: str) -> list[tuple[str, bool]]:
    try:
        return sorted(found for found in _scan(str(directory)) if _is_visible(found[0]))
    except OSError as error:
        raise UserError(f"{what} {directory} cannot be listed ({error.strerror}: {error.filename}).") from None


def _is_visible(path: str) -> bool:
    below = f"/{path}"
    return not ("/." in below or "/_" in below) and below.rpartition("/")[2] not in DESKTOP_FILES


def data_format(path: str) -> tuple[str, bool] | None:
    """Format of a data file by its name, and whether it is packed with gzip; None: it is none.

    None are hidden files, those that a program has not finished (x.csv.part) or holds open (~$x.xlsx), and endings that
    nobody reads.
    """
    name = path.rpartition("/")[2]
    if not _is_visible(path) or name.startswith("~$"):
        return None
    parts = name.lower().rsplit(".", 2)
    gzip = parts[-1] == "gz"
    ending = f".{parts[-2 if gzip else -1]}" if len(parts) > 1 + gzip else ""
    return (DATA_FORMATS[ending], gzip) if ending in DATA_FORMATS else None


def data_files(directory: Path, what: str) -> list[str]:
    """The data files of a folder: the one rule for who reads, hashes or watches a dataset.

    They are those of `user_files` that `data_format` knows, and what links within the folder lead to; what is reached
    by several names is read once, under its own name if that is one of a data file.

    Raises:
        UserError: As `user_files`; a link to a folder is one if it leads out of the folder.
    """
    plain: list[str] = []
    linked: list[str] = []
    for path, is_plain in _visible(directory, what):
        if is_plain or not (directory / path).is_symlink():
            if data_format(path) and _counts(directory, path, what, plain=is_plain):
                plain.append(path)
            continue
        at = directory / path
        if at.is_dir() and at.resolve().is_relative_to(directory.resolve()):
            linked += _below_link(directory, path)
        elif data_format(path) or at.is_dir():
            linked.append(path)
    if not linked:
        return plain
    found = {(directory / path).resolve(): path for path in plain}
    for path in linked:
        if _counts(directory, path, what):
            found.setdefault((directory / path).resolve(), path)
    return sorted(found.values())


def other_files(directory: Path, what: str) -> list[str]:
    """Files of a dataset folder that are not read, but for hidden ones; POSIX paths, sorted."""
    visible = _visible(directory, what)
    return [path for path, plain in visible if not data_format(path) and (plain or (directory / path).is_file())]


def _below_link(directory: Path, link: str) -> list[str]:
    """Data files behind a link to a folder; a link in there that leads back or on is refused as any other."""
    below = (f"{link}/{path}" for path in list_files((directory / link).resolve()))
    return [path for path in below if data_format(path)]


def _counts(directory: Path, path: str, what: str, *, plain: bool = False) -> bool:
    """True for a file, False for what is gone since the listing; `plain`: the listing says that it is a plain file."""
    try:
        path.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise UserError(
            f"{what} {directory}: the name of {shown!r} is not UTF-8, so it cannot be written down. Rename it."
        ) from None
    if plain:
        return True
    file = directory / path
    try:
        kind = what_it_is(file)
        if kind != "a link":
            problem = f"is {kind}, which has no content to read" if kind else ""
        elif not file.exists():
            problem = "is a link to nothing"
        elif not file.resolve().is_relative_to(directory.resolve()):
            problem = "is a link that leads out of the folder"
        elif file.is_dir():
            problem = "is a link to a folder"
        elif kind := what_it_is(file.resolve()):
            problem = f"is a link to {kind.removeprefix('a ')}"
        else:
            problem = ""
    except FileNotFoundError:
        return False
    except (OSError, RuntimeError) as error:  # a link to itself is a RuntimeError
        problem = f"cannot be looked at ({error})"
    if problem:
        raise UserError(
            f"{what} {directory}: {path} {problem}. Put a plain file there (`cp -L` copies what a link leads to), or "
            "take it away."
        )
    return True


def open_file(path: Path) -> io.BufferedReader:
    """Open a plain file for reading; opening a pipe would wait for a writer for ever.

    Raises:
        OSError: There is none, or it is no plain file (EINVAL).
    """
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a plain file", str(path))
    return os.fdopen(handle, "rb")


def read_json(path: Path, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parse a JSON document that others may have written.

    Raises:
        OSError: It cannot be read, or is no plain file.
        ValueError: Not UTF-8, not JSON, nested deeper than Python's parser goes, or larger than `max_bytes`.
    """
    with open_file(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes / 2**20:.0f} MiB")
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def hash_file(path: Path) -> FileEntry:
    """Size and SHA-256 of one plain file, read in pieces."""
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(bytes=file.tell(), sha256=digest)


def hash_bytes(content: bytes) -> FileEntry:
    """Size and SHA-256 of what is in memory."""
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def hash_files(directory: Path, paths: list[str] | None = None) -> dict[str, FileEntry]:
    """Size and SHA-256 of each file, or of all; hashlib lets go of the GIL, so threads help."""
    paths = list_files(directory) if paths is None else paths
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(paths, pool.map(lambda path: hash_file(directory / path), paths), strict=True))


def copy_file(source: Path, target: Path) -> None:
    """Copy a plain file's content: where the file system can (btrfs, XFS), the copy shares blocks until one changes.

    Never a hard link: with one, a byte overwritten in a bundle damages the store too.
    """
    with open_file(source) as from_, target.open("wb") as to:
        try:
            while os.copy_file_range(from_.fileno(), to.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            from_.seek(0)
            to.truncate(0)
            to.seek(0)
            shutil.copyfileobj(from_, to, 1 << 20)


def fsync_path(path: Path) -> None:
    """Make a file, or the names in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one, never a half.

    Safe among threads, and among containers that share a folder and process numbers: the temporary name is random and
    is created, never opened. What a killed writer left is removed by the next.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)
    for name in os.listdir(path.parent):
        if name.startswith(f".{path.name}.") and name.endswith(".tmp"):
            _remove_if_old(path.with_name(name))


def json_text(value: Any) -> str:
    """JSON for people and programs, keys in the order given; NaN is refused."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(path: Path, value: Any) -> None:
    """Write what a step found, keys in the order that a reader wants; NaN is refused."""
    path.write_text(json_text(value), encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write a model's configuration with a fixed layout and sorted keys, so that equal content gives equal bytes."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _remove_if_old(path: Path) -> None:
    try:
        if path.lstat().st_mtime < time.time() - _LEFTOVER_S:
            path.unlink()
    except FileNotFoundError:  # its writer lives, or another removed it
        pass
