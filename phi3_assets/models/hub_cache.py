"""The hub's cache: what lies in it is compared with what the hub promised before it is used.

`huggingface_hub` takes a file that is there for whole, whatever it holds (2.4.0). It names blobs after the hub's etag,
which is the SHA-256 of a large file and git's blob id of a small one, so a cache can be verified without the network.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from phi3_assets.core.files import hash_file
from phi3_assets.core.sealing import checksum, damage, seal, sealed_files


def remove_damaged(snapshot: Path, promised: Mapping[str, str]) -> list[str]:
    """Remove from the cache what does not hold what it should, so that it is downloaded again.

    What was compared with the hub's digests once is sealed; from then on the seal is enough, which is ten times faster.

    Args:
        snapshot: Files of one commit, links to blobs.
        promised: SHA-256 or git's blob id of each file, as the hub says now; empty when it cannot be asked.

    Returns:
        Names of files that were damaged or are missing.
    """
    repository = snapshot.parents[1]
    name, at = f"{repository.name}@{snapshot.name}", repository / f"{snapshot.name}.seal"
    if not damage(snapshot, name, at):
        return []
    try:
        sealed = sealed_files(at, name)
    except (OSError, ValueError):
        sealed = {}
    present = {path.name for path in snapshot.iterdir() if path.is_file()}
    wrong = [
        file
        for file in sorted({path.name for path in snapshot.iterdir()} | sealed.keys())
        if file not in present
        or not _holds(snapshot / file, promised.get(file, ""))
        or (file in sealed and sealed[file] != checksum(snapshot / file))
    ]
    for file in wrong:
        _remove(snapshot / file)
    if not wrong:
        seal(snapshot, name, at)
    return wrong


def _holds(path: Path, promised: str) -> bool:
    """True if a file has the digest that the hub gives it, or none is known."""
    digest = promised or (os.readlink(path).rpartition("/")[2] if path.is_symlink() else "")
    if re.fullmatch(r"[0-9a-f]{64}", digest):
        return hash_file(path).sha256 == digest
    if re.fullmatch(r"[0-9a-f]{40}", digest):
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return git.hexdigest() == digest
    return True


def _remove(path: Path) -> None:
    """A link, and all that it leads to."""
    while path.is_symlink():
        target = path.parent / os.readlink(path)
        path.unlink()
        path = target
    path.unlink(missing_ok=True)
