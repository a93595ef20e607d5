"""What a dataset folder holds, found out bit by bit: it is listed, and what has not been read yet is read.

A file is read once, when it has come to rest: when it looks as it did at a tick before. Its own date does not decide
that, for clocks jump. Reading stops when the tick's time is up, and goes on in the next one.
"""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import FileEntry, data_files, data_format, open_file
from phi3_assets.core.manifest import digest_of

WHAT = "Dataset folder"
_CHUNK_BYTES = 8 << 20
_COUNTED_AT_ONCE = 1000
"""Rows between two looks at the clock."""


class File(NamedTuple):
    """One data file.

    Attributes:
        look: What a listing says of it: size in bytes, mtime and ctime in ns; of a remote file its mark. With ctime,
            because a copy that keeps dates (cp -p, rsync) can put other bytes of one length behind the same mtime.
        since_s: Unix time of the tick that first found it like this.
        content: SHA-256, 64 hex digits; of a remote file its mark; "": not known yet.
        rows: How many it has; None: they were not counted.
    """

    look: str
    since_s: float
    content: str = ""
    rows: int | None = None


@dataclass(frozen=True)
class Seen:
    """What a tick found.

    Attributes:
        files: Every data file by its path.
        restless: A file that may still be being written; "": there is none.
        unread: How many files are at rest and not read yet.
    """

    files: Mapping[str, File]
    restless: str = ""
    unread: int = 0

    @property
    def version(self) -> str:
        """Content digest of all files, 64 hex digits; of a local folder that of raw_dataset's input `datasets`.

        "" as long as the content of one is not known, or there is none.
        """
        if self.restless or self.unread or not self.files:
            return ""
        return digest_of({path: FileEntry(0, file.content) for path, file in self.files.items()})


@dataclass(frozen=True)
class Reading:
    """How a tick reads.

    Attributes:
        settle_s: A file is at rest if it looks as it did at a tick so many seconds before.
        until: When to stop reading, on the clock of `time.monotonic`.
        count_rows: Whether the rows of what is read are counted, too.
        encoding: Of text that is neither marked nor UTF-8, by the recipe; "": it is detected.
    """

    settle_s: float
    until: float
    count_rows: bool = False
    encoding: str = ""


def look(directory: Path, known: Mapping[str, File], now_s: float, reading: Reading) -> Seen:
    """Look at a local folder, and read what is new in it and at rest.

    Args:
        directory: The dataset folder.
        known: Its files as the last tick left them.
        now_s: Unix time.
        reading: What may be read.

    Raises:
        UserError: The folder cannot be listed, holds what is no file, or a file cannot be read. A failed listing is
            not an empty folder.
    """
    if not directory.is_dir():
        raise UserError(f"{WHAT} {directory} cannot be listed: it is missing or not a folder.")
    looks = {path: _look_of(directory, path) for path in data_files(directory, WHAT)}
    files = _compare({path: look for path, look in looks.items() if look is not None}, known, now_s)
    restless, waiting = _sort(files, now_s, reading.settle_s)
    unread = 0
    for path in waiting:
        if unread and time.monotonic() >= reading.until:
            unread += 1
            continue
        content, rows = _read(directory, path, files[path].look, reading)
        if _look_of(directory, path) != files[path].look:  # it was written meanwhile; the next tick sees it anew
            files[path], restless = File("", now_s), path
            continue
        files[path] = files[path]._replace(content=content, rows=rows)
        unread += not content
    return Seen(files, restless, unread)


def look_remote(marks: Mapping[str, str], known: Mapping[str, File], now_s: float, settle_s: float) -> Seen:
    """The same of a remote folder, by what its listing says of each file (`list_remote`); nothing is fetched."""
    files = _compare(marks, known, now_s)
    restless, waiting = _sort(files, now_s, settle_s)
    files |= {path: files[path]._replace(content=marks[path]) for path in waiting}
    return Seen(files, restless)


def _compare(looks: Mapping[str, str], known: Mapping[str, File], now_s: float) -> dict[str, File]:
    new = File("", now_s)
    files = {path: known.get(path, new) for path in looks}
    return {path: file if file.look == looks[path] else File(looks[path], now_s) for path, file in files.items()}


def _sort(files: Mapping[str, File], now_s: float, settle_s: float) -> tuple[str, list[str]]:
    """A file that is not at rest, and those that are and whose content is not known.

    At rest is what looked so `settle_s` before. Where the clock was put back meanwhile, there was such a tick, too.
    """
    open_ = [path for path, file in files.items() if not file.content]
    restless = {path for path in open_ if 0 <= now_s - files[path].since_s < settle_s}
    return min(restless, default=""), [path for path in open_ if path not in restless]


def _look_of(directory: Path, path: str) -> str | None:
    """What a file looks like; None: it was removed since the listing."""
    try:
        stat = os.stat(f"{directory}/{path}")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(directory, path, error) from None
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _read(directory: Path, path: str, look: str, reading: Reading) -> tuple[str, int | None]:
    """SHA-256 and rows; "" where time is up before its end, or it is gone."""
    try:
        content = _hash_on(directory / path, look, reading.until)
    except FileNotFoundError:
        return "", None
    except OSError as error:
        raise _unreadable(directory, path, error) from None
    return content, _count_rows(directory, path, reading) if content and reading.count_rows else None


# The one file that is being read over several ticks, which one process does: a digest cannot be written down half-made.
_begun: dict[tuple[Path, str], tuple["hashlib._Hash", int]] = {}


def _hash_on(file: Path, look: str, until: float) -> str:
    """SHA-256 of a file, or "" when time is up; the next call goes on from there."""
    digest, offset = _begun.pop((file, look), (hashlib.sha256(), 0))
    _begun.clear()
    with open_file(file) as content:
        content.seek(offset)
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            if len(chunk) == _CHUNK_BYTES and time.monotonic() >= until:
                _begun[file, look] = digest, content.tell()
                return ""
    return digest.hexdigest()


def _count_rows(directory: Path, path: str, reading: Reading) -> int | None:
    """How many rows a file has, as raw_dataset counts them; None: more than can be counted in a tick."""
    from phi3_assets.data.read.readers import read_rows
    from phi3_assets.data.read.rows import FileDamage
    from phi3_assets.data.read.sources import SourceFile

    known = data_format(path)
    assert known is not None
    _, rows = read_rows(SourceFile(path, directory / path, *known, reading.encoding))
    number = 0
    try:
        for number, _ in enumerate(rows, 1):
            if number % _COUNTED_AT_ONCE == 0 and time.monotonic() >= reading.until:
                return None
    except FileDamage:
        return number  # those before the damage are kept by raw_dataset, too
    return number


def _unreadable(directory: Path, path: str, error: OSError) -> UserError:
    return UserError(
        f"{WHAT} {directory}: {path} cannot be read ({error.strerror}). Make it readable, or take it away."
    )
