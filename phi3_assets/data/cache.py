"""Directories by key, made once and kept between runs: files already read, rows already tokenised.

A key says all that the content depends on, so an entry is never wrong, only missing. An entry appears by one rename.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

_SEAL = "sealed.json"
_KEEP_S = 30 * 24 * 3600
"""An entry that no run has used for this long, in seconds, is removed."""


def copy_out(copies: Sequence[tuple[Path, Path]]) -> None:
    """Copy files, each (from, to), out of a cache: copies and no links, so that an artefact is damaged alone."""
    with ThreadPoolExecutor(os.cpu_count()) as copiers:
        for _ in copiers.map(lambda pair: shutil.copyfile(*pair), copies):
            pass  # an error surfaces here


class DirectoryCache:
    """Directories under `root`, one per key (a file name)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        os.utime(root)  # a cache may be an entry of another

    def get(self, key: str, used: bool = True) -> Path | None:
        """The entry, or None. An entry whose files do not have their recorded sizes (a full disk) is removed.

        With `used`, the entry is kept for another month.
        """
        folder = self.root / key
        try:
            seal = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
            whole = all((folder / name).stat().st_size == size for name, size in seal.items())
        except (FileNotFoundError, ValueError):
            whole = False
        if not whole:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        if used:
            os.utime(folder / _SEAL)
        return folder

    def put(self, key: str, make: Callable[[Path], None]) -> Path:
        """Have `make` fill an empty directory and keep it under `key`; a directory that is there already wins."""
        new = self.root / f".{key}.{uuid4().hex}"
        new.mkdir()
        try:
            make(new)
            sizes = {path.name: path.stat().st_size for path in sorted(new.iterdir())}
            (new / _SEAL).write_text(json.dumps(sizes), encoding="utf-8")
            target = self.root / key
            try:
                new.rename(target)
            except OSError:
                if self.get(key) is None:  # not another run's doing
                    new.rename(target)
            return target
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def __iter__(self) -> Iterator[str]:
        """Keys of the entries, sorted."""
        return iter(sorted(path.name for path in self.root.iterdir() if not path.name.startswith(".")))

    def prune(self) -> None:
        """Remove what no run has used for a month, and what was left by runs that were killed."""
        oldest = time.time() - _KEEP_S
        for path in self.root.iterdir():
            seal = path / _SEAL
            try:
                used = (seal if seal.exists() else path).stat().st_mtime
            except FileNotFoundError:
                continue
            if used < oldest:
                shutil.rmtree(path, ignore_errors=True)
