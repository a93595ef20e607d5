"""Directories by key, made once and kept between runs: files already read, rows already tokenised.

A key says all that the content depends on, and an entry's bytes are compared with its seal before they are used, so an
entry is never wrong, only missing. An entry appears by one rename, and goes by one.
"""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import filelock

from phi3_assets.core.sealing import damage, seal

_KEEP_S = 30 * 24 * 3600
"""An entry that no run has used for this long, in seconds, is removed."""
_HALF_MADE_S = 24 * 3600
"""What a run began and did not finish is taken for a killed run's after this many seconds."""


def copy_out(copies: Sequence[tuple[Path, Path]]) -> None:
    """Copy files, each (from, to), out of a cache: copies and no links, so that an artefact is damaged alone."""
    with ThreadPoolExecutor(os.cpu_count()) as copiers:
        for _ in copiers.map(lambda pair: shutil.copyfile(*pair), copies):
            pass  # an error surfaces here


class DirectoryCache:
    """Directories under `root`, one per key (a file name); several runs may use it at once."""

    def __init__(self, root: Path, log: Callable[[str], None] = print) -> None:
        """`log` is told of each entry that was found damaged."""
        self.root = root
        self._log = log
        root.mkdir(parents=True, exist_ok=True)
        os.utime(root)  # a cache may be an entry of another
        self._lock = filelock.FileLock(root / ".lock")

    def get(self, key: str, used: bool = True) -> Path | None:
        """The entry, every byte of it verified, or None. A damaged entry is removed, so that it is made anew.

        With `used`, the entry is kept for another month.
        """
        folder = self.root / key
        if not folder.exists():
            return None
        if used:
            with suppress(FileNotFoundError):
                os.utime(folder)  # first, or it would be pruned while it is verified
        if not damage(folder, key):
            return folder
        with self._lock:
            # Looked at again: another run may have made it anew since.
            if folder.exists() and (wrong := damage(folder, key)):
                self._log(f"Cache {self.root.name[:16]}: {key[:16]} is damaged ({wrong}) and is made anew")
                _remove(folder)
        return None

    def get_all(self, keys: Sequence[str], used: bool = True) -> list[Path | None]:
        """`get` for each key, on all cores: checksums are computed outside Python's lock."""
        with ThreadPoolExecutor(os.cpu_count()) as checkers:
            return list(checkers.map(lambda key: self.get(key, used), keys))

    def put(self, key: str, make: Callable[[Path], None]) -> Path:
        """Have `make` fill an empty directory and keep it under `key`; a whole one that is there already wins."""
        new = self.root / f".{key}.{uuid4().hex}"
        new.mkdir(parents=True)
        try:
            make(new)
            seal(new, key)
            target = self.root / key
            while True:
                try:
                    with self._lock:
                        new.rename(target)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                    if self.get(key) is None:
                        continue  # what was there was damaged, and is gone
                return target
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def __iter__(self) -> Iterator[str]:
        """Keys of the entries, sorted."""
        return iter(sorted(path.name for path in self.root.iterdir() if not path.name.startswith(".")))

    def prune(self) -> None:
        """Remove what no run has used for a month, and what was left by runs that were killed."""
        remove_stale(self.root)


def stale(root: Path) -> list[Path]:
    """Entries of a cache that no run has used for a month, and what was left by runs that were killed."""
    return [path for path in sorted(root.iterdir()) if path.is_dir() and _is_stale(path)]


def remove_stale(root: Path) -> None:
    """Remove what is stale; unlike a `DirectoryCache`, this is no use of the cache."""
    lock = filelock.FileLock(root / ".lock")
    for path in stale(root):
        with lock, suppress(FileNotFoundError):
            if _is_stale(path):  # still: a run may have taken it up since
                _remove(path)


def _is_stale(path: Path) -> bool:
    keep_s = _HALF_MADE_S if path.name.startswith(".") else _KEEP_S
    try:
        return path.stat().st_mtime < time.time() - keep_s
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    """By one rename first: a reader finds the entry whole or not at all. The cache's lock is held."""
    gone = folder.with_name(f".gone.{uuid4().hex}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
