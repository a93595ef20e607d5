"""What a full disk, a bad sector or a person does to a file."""

import random
from collections.abc import Callable
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
