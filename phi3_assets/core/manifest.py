"""The manifest: what makes a directory an artefact, and the proof that it still is one.

`manifest.json` is written last. A directory without it is not an artefact; one whose files differ from it is damaged.
It holds no absolute path, so an artefact can be copied to another machine or into a blob container as it is.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.step import StepCall, sha256_of

MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class ArtefactRef:
    """Names one artefact, anywhere; this is all that travels between ops.

    Attributes:
        kind: Name of the step that made it.
        identity: SHA-256 of what it was made of, 64 hex digits.
        digest: SHA-256 of what it holds, 64 hex digits; Dagster's data version.
    """

    kind: str
    identity: str
    digest: str

    def to_dict(self) -> dict[str, str]:
        """JSON form; `ArtefactRef(**d)` is its inverse."""
        return asdict(self)


@dataclass(frozen=True)
class FileEntry:
    """One file: size in bytes and SHA-256 in hex."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """An artefact's record.

    Attributes:
        call: What the artefact was made of; its hash is the identity.
        files: Every file except the manifest, by POSIX path relative to the directory.
        metrics: What the step measured; outside the digest, since times differ between runs.
        versions: Python, platform and library versions of the process that made it.
        ran: Where and how long: host, execution, started and finished (UTC), seconds, peak_memory_bytes.
        made_from: Which artefact each input was, by name; folders of the user's are not among them. The identity
            knows inputs by content alone, so this stands outside it.
    """

    call: StepCall
    files: dict[str, FileEntry]
    metrics: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    ran: dict[str, Any] = field(default_factory=dict)
    made_from: dict[str, ArtefactRef] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over the paths and digests of all files, 64 hex digits: equal content, equal digest."""
        return digest_of(self.files)

    @property
    def ref(self) -> ArtefactRef:
        """The artefact's name."""
        return ArtefactRef(kind=self.call.step, identity=self.call.identity, digest=self.digest)

    @property
    def bytes(self) -> int:
        """Size of all files in bytes."""
        return sum(entry.bytes for entry in self.files.values())

    def to_json(self) -> str:
        """The text of manifest.json."""
        value = {
            "format": FORMAT,
            "identity": self.call.identity,
            "digest": self.digest,
            "call": self.call.to_dict(),
            "files": {path: asdict(entry) for path, entry in sorted(self.files.items())},
            "metrics": self.metrics,
            "versions": self.versions,
            "ran": self.ran,
            "made_from": {name: ref.to_dict() for name, ref in sorted(self.made_from.items())},
        }
        return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> "Manifest":
        """Parse manifest.json.

        Raises:
            DamagedArtefact: Not JSON, of another format, or its identity or digest does not follow from its content.
        """
        try:
            value = json.loads(text)
            if value["format"] != FORMAT:
                raise DamagedArtefact(f"{where} has format {value['format']}; this version reads format {FORMAT}.")
            manifest = cls(
                call=StepCall(**value["call"]),
                files={path: FileEntry(**entry) for path, entry in value["files"].items()},
                metrics=value["metrics"],
                versions=value["versions"],
                ran=value["ran"],
                made_from={name: ArtefactRef(**ref) for name, ref in value.get("made_from", {}).items()},
            )
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedArtefact(f"{where} is not a manifest ({error!r}). {WAY_OUT}") from None
        if (manifest.call.identity, manifest.digest) != (value["identity"], value["digest"]):
            raise DamagedArtefact(f"{where} was edited: identity or digest do not follow from it. {WAY_OUT}")
        return manifest


WAY_OUT = "Delete the artefact's directory and materialise it again."


def digest_of(files: dict[str, FileEntry]) -> str:
    """Content digest of a set of files; sizes and times do not count."""
    return sha256_of({path: entry.sha256 for path, entry in files.items()})


def list_files(directory: Path, *, hidden: bool = True) -> list[str]:
    """POSIX paths of all files below `directory`, sorted, except the manifest and, if not `hidden`, dot files."""
    found = []
    for root, folders, names in os.walk(directory):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
            names = [name for name in names if not name.startswith(".")]
        found += [Path(root, name).relative_to(directory).as_posix() for name in names]
    return sorted(path for path in found if path != MANIFEST)


def hash_file(path: Path) -> FileEntry:
    """Size and SHA-256 of one file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(bytes=file.tell(), sha256=digest)


def hash_bytes(content: bytes) -> FileEntry:
    """Size and SHA-256 of what is in memory."""
    return FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def hash_files(directory: Path, paths: list[str] | None = None) -> dict[str, FileEntry]:
    """Size and SHA-256 of each file; hashlib lets go of the GIL, so threads help."""
    paths = list_files(directory) if paths is None else paths
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(paths, pool.map(lambda path: hash_file(directory / path), paths), strict=True))


def fsync_path(path: Path) -> None:
    """Make a file, or the names in a directory, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def seal(directory: Path, manifest: Manifest) -> None:
    """Write manifest.json into a finished directory, after every other byte is safely on the disk."""
    folders = {directory}
    for relative in manifest.files:
        path = directory / relative
        fsync_path(path)
        folders.add(path.parent)
    for folder in folders:
        fsync_path(folder)
    write_atomically(directory / MANIFEST, manifest.to_json())


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a small file so that a reader sees the old one or the new one, never a half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_path(path.parent)


def read_manifest(directory: Path) -> Manifest:
    """Read a directory's manifest.

    Raises:
        FileNotFoundError: The directory is no artefact.
        DamagedArtefact: See `Manifest.from_json`.
    """
    path = directory / MANIFEST
    return Manifest.from_json(path.read_text(encoding="utf-8"), where=str(path))


def verify(directory: Path, manifest: Manifest, *, content: bool) -> None:
    """Compare a directory with its manifest: names and sizes, and with `content` every byte.

    Raises:
        DamagedArtefact: Names the first file that is missing, extra, of another size or of other content.
    """
    present = set(list_files(directory))
    for relative in sorted(present ^ set(manifest.files)):
        state = "is not in the manifest" if relative in present else "is missing"
        raise DamagedArtefact(f"{directory / relative} {state}. {WAY_OUT}")
    for relative, entry in manifest.files.items():
        size = (directory / relative).stat().st_size
        if size != entry.bytes:
            raise DamagedArtefact(
                f"{directory / relative} has {size} bytes, its manifest says {entry.bytes}. {WAY_OUT}"
            )
    if content:
        for relative, entry in hash_files(directory, list(manifest.files)).items():
            if entry != manifest.files[relative]:
                raise DamagedArtefact(f"{directory / relative} was changed: its SHA-256 differs. {WAY_OUT}")


def fingerprint(directory: Path, what: str) -> dict[str, FileEntry]:
    """Content of a folder that is not ours, such as the user's datasets.

    Args:
        directory: The folder.
        what: How errors name it, such as "Dataset folder".

    Raises:
        UserError: It is missing, not a folder, or holds no file.
    """
    if not directory.is_dir():
        state = "is not a folder" if directory.exists() else "does not exist"
        raise UserError(f"{what} {directory} {state}. Create it and put files there; `phi3 init` lays out a home.")
    # Editors and copying tools keep their half-written files behind a dot.
    files = hash_files(directory, list_files(directory, hidden=False))
    if not files:
        raise UserError(f"{what} {directory} is empty. Put at least one file there.")
    return files
