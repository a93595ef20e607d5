"""The manifest: what makes a directory an artefact, and the proof that it still is one.

`manifest.json` is written last. A directory without it is not an artefact; one whose files differ from it is damaged.
It holds no absolute path, so an artefact can be copied to another machine or into a blob container as it is.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import (
    DESKTOP_FILES,
    FileEntry,
    fsync_path,
    hash_files,
    json_text,
    list_files,
    open_file,
    user_files,
    what_it_is,
    write_atomically,
)
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
class Manifest:
    """An artefact's record.

    Attributes:
        call: What the artefact was made of; its hash is the identity.
        files: Every file except the manifest, by POSIX path relative to the directory.
        metrics: What the step measured; outside the digest, since times differ between runs.
        versions: Python, platform and library versions of the process that made it, with their build tags.
        ran: Where and how long: host, execution, job of a workspace if it was one, cpu and gpu by model, started and
            finished (UTC), seconds, peak_memory_bytes.
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
        return json_text(value)

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
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedArtefact(f"{where} is not a manifest ({error!r}). {WAY_OUT}") from None
        if (manifest.call.identity, manifest.digest) != (value["identity"], value["digest"]):
            raise DamagedArtefact(f"{where} was edited: identity or digest do not follow from it. {WAY_OUT}")
        return manifest


WAY_OUT = "Delete the artefact's directory and materialise it again."


def digest_of(files: dict[str, FileEntry]) -> str:
    """Content digest of a set of files; sizes and times do not count."""
    return sha256_of({path: entry.sha256 for path, entry in files.items()})


def artefact_files(directory: Path) -> list[str]:
    """POSIX paths of what an artefact's directory holds, sorted, except the manifest and what desktops leave behind.

    To look at an artefact in Finder must not void it; a desktop's file that the step wrote is in the manifest.
    """
    paths = list_files(directory)
    return [path for path in paths if path != MANIFEST and path.rpartition("/")[2] not in DESKTOP_FILES]


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


def read_manifest(directory: Path) -> Manifest:
    """Read a directory's manifest.

    Raises:
        FileNotFoundError: The directory is no artefact.
        DamagedArtefact: See `Manifest.from_json`.
    """
    path = directory / MANIFEST
    try:
        with open_file(path) as file:
            text = file.read().decode()
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedArtefact(f"{path} cannot be read as a manifest ({error}). {WAY_OUT}") from None
    return Manifest.from_json(text, where=str(path))


def verify(directory: Path, manifest: Manifest, *, content: bool) -> None:
    """Compare a directory with its manifest: names and sizes, and with `content` every byte.

    Raises:
        DamagedArtefact: Names the first file that is missing, extra, no plain file, of another size or of other
            content.
    """
    present = set(list_files(directory))
    for relative in sorted(set(manifest.files) - present):
        raise DamagedArtefact(f"{directory / relative} is missing. {WAY_OUT}")
    for relative in sorted(set(artefact_files(directory)) - set(manifest.files)):
        raise DamagedArtefact(f"{directory / relative} is not in the manifest. {WAY_OUT}")
    for relative, entry in manifest.files.items():
        path = directory / relative
        if kind := what_it_is(path):
            raise DamagedArtefact(f"{path} is {kind} and no file. {WAY_OUT}")
        size = path.stat().st_size
        if size != entry.bytes:
            raise DamagedArtefact(f"{path} has {size} bytes, its manifest says {entry.bytes}. {WAY_OUT}")
    if content:
        for relative, entry in hash_files(directory, list(manifest.files)).items():
            if entry != manifest.files[relative]:
                raise DamagedArtefact(f"{directory / relative} was changed: its SHA-256 differs. {WAY_OUT}")


def fingerprint(directory: Path, what: str) -> dict[str, FileEntry]:
    """Content of a folder that is not ours, such as the user's datasets: of each file that `user_files` counts.

    Args:
        directory: The folder.
        what: How errors name it, such as "Dataset folder".

    Raises:
        UserError: It is missing, not a folder, holds no file, or holds something that cannot be read.
    """
    if not directory.is_dir():
        state = "is not a folder" if directory.exists() else "does not exist"
        raise UserError(f"{what} {directory} {state}. Create it and put files there; `phi3 init` lays out a home.")
    try:
        files = hash_files(directory, user_files(directory, what))
    except OSError as error:
        raise UserError(f"{what} {directory}: {error.filename} cannot be read ({error.strerror}).") from None
    if not files:
        raise UserError(f"{what} {directory} is empty. Put at least one file there.")
    return files
