"""A seal: a small file, written last, that says what a folder of ours held when it was finished.

For what lies between runs and is no artefact: caches, mirrored data, checkpoints. An artefact's manifest names it to
the world by SHA-256; a seal only tells this machine whether a disk, a kill or a hand changed something since. xxHash
is enough for that, and reads ten times as much in a second.
"""

import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import xxhash

SEAL = "sealed.json"
_PIECE_BYTES = 1 << 20


def checksum(path: Path) -> tuple[int, str]:
    """Size of a file in bytes and its XXH3-128 in hex."""
    digest = xxhash.xxh3_128()
    size = 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            size += len(piece)
    return size, digest.hexdigest()


def seal(folder: Path, name: str, at: Path | None = None) -> None:
    """Seal all files below `folder`, under a name that it cannot be exchanged for another by.

    Args:
        folder: What is finished.
        name: What it is.
        at: The seal's file; default: in the folder itself.
    """
    at = at or folder / SEAL
    value = {"name": name, "files": {path: checksum(folder / path) for path in sorted(_files(folder))}}
    text = json.dumps(value)
    half = at.with_name(f".{at.name}.{uuid4().hex}")
    half.write_text(f"{text}\n{_sum(text)}\n", encoding="utf-8")
    half.replace(at)


def sealed_files(at: Path, name: str) -> dict[str, tuple[int, str]]:
    """The checksum of each file, as it was sealed.

    Raises:
        ValueError: The seal is damaged, of an earlier version, or of something else.
        OSError: It is missing, or cannot be read.
    """
    text, _, rest = at.read_text(encoding="utf-8").partition("\n")
    if rest.strip() != _sum(text):
        raise ValueError(f"{at.name} is damaged, or of an earlier version")
    value: dict[str, Any] = json.loads(text)
    if value["name"] != name:
        raise ValueError("it is another's")
    return {path: (size, digest) for path, (size, digest) in value["files"].items()}


def damage(folder: Path, name: str, at: Path | None = None) -> str:
    """What is wrong with a sealed folder, in a few words; "" if every byte is as it was."""
    try:
        files = sealed_files(at or folder / SEAL, name)
        for path in sorted(_files(folder) ^ files.keys()):
            return f"{path} is missing" if path in files else f"{path} does not belong to it"
        for path, (size, digest) in files.items():
            if (folder / path).stat().st_size != size:
                return f"{path} has another size"
            if checksum(folder / path) != (size, digest):
                return f"{path} was changed"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error) if not isinstance(error, UnicodeDecodeError) else f"{SEAL} is damaged"
    return ""


def _sum(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())


def _files(folder: Path) -> set[str]:
    """POSIX paths of what lies below, but for the seal."""
    found = {Path(root, file).relative_to(folder).as_posix() for root, _, files in os.walk(folder) for file in files}
    return {path for path in found if path != SEAL and not path.startswith(f".{SEAL}.")}
