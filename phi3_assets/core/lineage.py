"""Which artefacts of a home were made from which, read from their manifests."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from phi3_assets.core.manifest import MANIFEST, Manifest, read_manifest


def artefacts(home: Path) -> dict[Path, Manifest]:
    """Every artefact of a home by its folder, oldest first."""
    found = {path.parent: read_manifest(path.parent) for path in home.glob(f"*/*/*/{MANIFEST}")}
    return dict(sorted(found.items(), key=lambda item: str(item[1].ran.get("finished", ""))))


def made_from(every: Iterable[Manifest], roots: Sequence[Manifest]) -> list[Manifest]:
    """The roots, and all that was made from them, directly or not.

    By the artefacts that a manifest names; by the content of the inputs where it is from before it named them.
    """
    found = list(roots)
    left = [manifest for manifest in every if manifest.ref not in {root.ref for root in roots}]
    grew = True
    while grew:
        refs = {(manifest.call.step, manifest.call.identity) for manifest in found}
        digests = {(manifest.call.step, manifest.digest) for manifest in found}
        new = [
            manifest
            for manifest in left
            if any((ref.kind, ref.identity) in refs for ref in manifest.made_from.values())
            or (not manifest.made_from and not digests.isdisjoint(manifest.call.inputs.items()))
        ]
        found += new
        left = [manifest for manifest in left if manifest not in new]
        grew = bool(new)
    return found
