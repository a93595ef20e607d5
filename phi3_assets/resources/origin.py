"""Where a release comes from: every artefact behind it, and the user's files, as their manifests say it.

Manifests hold no path and no name of a machine's folder, so a home that was moved tells the same.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import hash_files
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import MANIFEST, ArtefactRef, Manifest, digest_of
from phi3_assets.release.bundle import RELEASE, SIGNATURE, read_release
from phi3_assets.resources.lineage import lineage, manifests
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import RAW_DATASET, STEPS

_UNKNOWN = "not recorded"


@dataclass(frozen=True)
class Made:
    """One artefact behind a release.

    Attributes:
        kind: The step that made it.
        identity: 64 hex digits.
        digest: Of its content, 64 hex digits; Dagster's data version.
        code_version: The step's.
        inputs: Content digest of everything that it read, by name.
        recipe: The recipe fields it was made with.
        versions: Python, platform and libraries of the process that made it.
        ran: Where, when and how long.
    """

    kind: str
    identity: str
    digest: str
    code_version: str
    inputs: dict[str, str]
    recipe: dict[str, Any]
    versions: dict[str, str]
    ran: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """One file of the user's: its name in the dataset folder, the digest of its content, rows, and those that count."""

    file: str
    sha256: str
    rows: int
    readable_rows: int


@dataclass(frozen=True)
class Origin:
    """What a release was made of.

    Attributes:
        release: The release_bundle.
        made: The artefacts, the release among them, in the order of the graph.
        sources: The files of the user's that `raw_dataset` read.
        gone: Artefacts that stand no more, "kind identity"; nobody knows what they were made of.
    """

    release: ArtefactRef
    made: tuple[Made, ...]
    sources: tuple[Source, ...]
    gone: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)


def origin_of(store: ArtifactStore, release: ArtefactRef) -> Origin:
    """Where a release comes from, down to the user's files.

    Raises:
        UserError: It does not stand.
        DamagedArtefact: The bundle says that it was made of something else than its manifests do.
    """
    made_of = lineage(store, release)
    standing = manifests(store, made_of)
    path = store.peek(release, RELEASE) / RELEASE
    for name, digest in read_release(path.parent)["made_of"].items():
        if name in made_of and made_of[name].digest != digest:
            raise DamagedArtefact(
                f"{path} says that the release was made of {name} {digest[:SHORT]}, its manifest says "
                f"{made_of[name].digest[:SHORT]}. One of them was changed; `phi3 bundle verify` tells which."
            )
    made = [_made(standing[name]) for name in STEPS if name in standing]
    gone = [f"{ref.kind} {ref.identity[:SHORT]}" for name, ref in made_of.items() if name not in standing]
    raw_dataset = standing.get(RAW_DATASET.name)
    files = raw_dataset.metrics["files"] if raw_dataset else []
    sources = [
        Source(one["file"], one.get("sha256", _UNKNOWN), one["rows"], one["readable_rows"])
        for one in sorted(files, key=lambda one: str(one["file"]))
    ]
    return Origin(release, tuple(made), tuple(sources), tuple(sorted(gone)))


def digest_of_bundle(bundle: Path) -> str:
    """Content digest of a bundle that was handed out: that of the artefact it is a copy of.

    Raises:
        UserError: The folder is no bundle.
    """
    read_release(bundle)
    return digest_of({path: entry for path, entry in hash_files(bundle).items() if path not in (MANIFEST, SIGNATURE)})


def find_release(releases: list[ArtefactRef], named: str) -> ArtefactRef:
    """The release that a person means.

    Args:
        releases: Those that are known.
        named: Identity or how it begins, or the folder of a bundle that was handed out.

    Raises:
        UserError: None of them, or several.
    """
    if Path(named).is_dir():
        digest = digest_of_bundle(Path(named))
        found = [ref for ref in releases if ref.digest == digest]
    else:
        found = [ref for ref in releases if ref.identity.startswith(named)]
    if len(found) != 1:
        known = ", ".join(ref.identity[:SHORT] for ref in releases) or "none"
        raise UserError(f"{named!r} names {len(found) or 'no'} releases of this product. Known are: {known}.")
    return found[0]


def told(origin: Origin) -> str:
    """The origin for a person at a terminal."""
    lines = [f"release {origin.release.identity[:SHORT]}, content {origin.release.digest}", ""]
    lines.append(f"{'artefact':18}{'identity':18}{'content':18}{'code':6}made, UTC")
    for one in origin.made:
        finished = str(one.ran.get("finished", ""))[:19]
        lines.append(f"{one.kind:18}{one.identity[:SHORT]:18}{one.digest[:SHORT]:18}{one.code_version:6}{finished}")
    lines += [f"{name:36}stands no more; what it was made of is not known" for name in origin.gone]
    lines += ["", f"{'file':40}{'rows':>10}{'usable':>10}  content (SHA-256)"]
    lines += [f"{one.file:40}{one.rows:>10,}{one.readable_rows:>10,}  {one.sha256}" for one in origin.sources]
    lines += ["", "recipe, step by step"]
    for one in origin.made:
        if one.recipe:
            lines.append(f"{one.kind:18}{', '.join(f'{name}={value}' for name, value in one.recipe.items())}")
    versions = {name: version for one in origin.made for name, version in one.versions.items()}
    lines += ["", "versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))]
    return "\n".join(lines)


def _made(manifest: Manifest) -> Made:
    call = manifest.call
    return Made(
        kind=call.step,
        identity=call.identity,
        digest=manifest.digest,
        code_version=call.code_version,
        inputs=call.inputs,
        recipe={**call.params, **call.settings},
        versions=manifest.versions,
        ran=manifest.ran,
    )
