"""Which artefacts are needed: those that something points to, and all that they were made of. Pure; deletes nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from phi3_assets.core.manifest import ArtefactRef


@dataclass(frozen=True)
class Standing:
    """An artefact in the store, as far as its lineage goes.

    Attributes:
        ref: Its name.
        made_from: Its input artefacts; empty for one that has none, or whose manifest is older than the field.
        inputs: Content digest of each input, the user's files among them.
    """

    ref: ArtefactRef
    made_from: Mapping[str, ArtefactRef]
    inputs: Mapping[str, str]


def reachable(standing: Iterable[Standing], roots: Iterable[ArtefactRef]) -> set[ArtefactRef]:
    """The artefacts among `standing` that the roots are, or were made of.

    Where a manifest does not name an input's artefact, every artefact with that input's content is kept.
    """
    by_name = {(one.ref.kind, one.ref.identity): one for one in standing}
    by_content: dict[str, list[Standing]] = {}
    for one in by_name.values():
        by_content.setdefault(one.ref.digest, []).append(one)
    waiting = [by_name[key] for root in roots if (key := (root.kind, root.identity)) in by_name]
    found: set[ArtefactRef] = set()
    while waiting:
        one = waiting.pop()
        if one.ref in found:
            continue
        found.add(one.ref)
        for name, digest in one.inputs.items():
            source = one.made_from.get(name)
            named = by_name.get((source.kind, source.identity)) if source else None
            waiting += [named] if named else by_content.get(digest, [])
    return found
