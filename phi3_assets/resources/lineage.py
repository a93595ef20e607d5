"""What an artefact was made of, read from manifests."""

from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.resources.store import ArtifactStore


def lineage(store: ArtifactStore, *refs: ArtefactRef) -> dict[str, ArtefactRef]:
    """All artefacts that these were made of, by kind, themselves included.

    An artefact that is gone is named, but not what it was made of.

    Raises:
        UserError: They were made of different artefacts of one kind; says which.
    """
    found: dict[str, ArtefactRef] = {}
    wanted_by: dict[str, ArtefactRef] = {}
    waiting = [(ref, ref) for ref in refs]
    while waiting:
        ref, user = waiting.pop(0)
        known = found.get(ref.kind)
        if known is not None:
            if known.digest != ref.digest:
                raise UserError(
                    f"{_name(wanted_by[ref.kind])} was made of {_name(known)}, but {_name(user)} of {_name(ref)}: what "
                    f"one says is not true of the other. Materialise {', '.join(_behind(ref.kind, refs))} again with "
                    "one recipe."
                )
            continue
        found[ref.kind], wanted_by[ref.kind] = ref, user
        manifest = store.find(ref.kind, ref.identity)
        waiting += [(one, ref) for one in manifest.made_from.values()] if manifest else []
    return found


def manifests(store: ArtifactStore, made_of: dict[str, ArtefactRef]) -> dict[str, Manifest]:
    """The manifests of those artefacts that still stand."""
    found = {name: store.find(ref.kind, ref.identity) for name, ref in made_of.items()}
    return {name: manifest for name, manifest in found.items() if manifest}


def _behind(kind: str, refs: tuple[ArtefactRef, ...]) -> list[str]:
    return [ref.kind for ref in refs if ref.kind != kind] or [kind]


def _name(ref: ArtefactRef) -> str:
    return f"{ref.kind} {ref.identity[:SHORT]}"
