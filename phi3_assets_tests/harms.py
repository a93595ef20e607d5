"""What a full disk, a bad sector or a person does to a file; and a disk that is easily full."""

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cut(path: Path) -> None:
    """Only the first half of it was written."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    """Nothing of it was written."""
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """One bit of it differs."""
    content = bytearray(path.read_bytes())
    content[random.Random(path.name).randrange(len(content))] ^= 16
    path.write_bytes(content)


HARMS: list[Callable[[Path], None]] = [cut, empty, flip, Path.unlink]


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[bool]:
    """A disk of its own at this folder, which is made; False: nothing can be mounted here."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
