"""Sizes and ages of files that other processes may be writing or removing at this moment."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def folders(folder: Path) -> list[Path]:
    """Folders in a folder, sorted; none if there is no such folder."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _with_all_below(path: Path) -> Iterator[Path]:
    """A path and what lies below it; os.walk passes over folders that vanish meanwhile, rglob does not."""
    yield path
    for root, folders, files in os.walk(path):
        yield from (Path(root, name) for name in (*folders, *files))


def size(*paths: Path) -> int:
    """Bytes of files, and of all files below folders; those that vanish meanwhile count nothing."""
    total = 0
    for file in [one for path in paths for one in _with_all_below(path)]:
        with suppress(FileNotFoundError):
            status = file.lstat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total


def newest(path: Path) -> float:
    """When anything in a folder was last written, in seconds since 1970."""
    return max(map(mtime, _with_all_below(path)))


def mtime(path: Path) -> float:
    """When a file was last written, in seconds since 1970; now, if it has just vanished."""
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()
