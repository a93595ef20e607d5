"""A seal: a small file, written last, that says what a folder of ours held when it was finished.

For what lies between runs and is no artefact: caches, mirrored data, checkpoints. An artefact's manifest names it to
the world by SHA-256; a seal only tells this machine whether a disk, a kill or a hand changed something since. xxHash
is enough for that, and reads ten times as much in a second.
"""

import json
import os
from pathlib import Path
from typing import Any

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


def seal(folder: Path, name: str) -> None:
    """Seal all files below `folder`, under a name that it cannot be exchanged for another by."""
    files = {path: checksum(folder / path) for path in _files(folder)}
    half = folder / f".{SEAL}"
    half.write_text(json.dumps({"name": name, "files": files}), encoding="utf-8")
    half.replace(folder / SEAL)


def damage(folder: Path, name: str) -> str:
    """What is wrong with a sealed folder, in a few words; "" if every byte is as it was."""
    try:
        value = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        files: dict[str, Any] = value["files"]
        if value["name"] != name:
            return "it is another's"
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
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{SEAL} is damaged, or of an earlier version"
    return ""


def _files(folder: Path) -> set[str]:
    """POSIX paths of what lies below, but for the seal."""
    found = {Path(root, file).relative_to(folder).as_posix() for root, _, files in os.walk(folder) for file in files}
    return found - {SEAL, f".{SEAL}"}
