"""Which models are asked: the champion and what it was made of, or another release by name, or what was made last.

One lineage always: the artefacts of an answer were made of one another, or there is a sentence why there is none.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from phi3_assets.chat.engines import INPUTS
from phi3_assets.chat.serving import LATEST
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.release.champion import Champion
from phi3_assets.release.history import Entry, last_about, present, status_of
from phi3_assets.resources.lineage import lineage
from phi3_assets.resources.origin import find_release
from phi3_assets.resources.pointers import latest, latest_recipe
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import FORMATTED_CORPUS, ONNX_INT4_MODEL, RELEASE_BUNDLE, STEPS

# The last artefact of each variant: what it was made of is known from there on.
_TOP = {variant: names[-1] for variant, names in INPUTS.items()}


@dataclass(frozen=True)
class Asked:
    """Artefacts that were made of one another, so they may be asked side by side.

    Attributes:
        told: Product, identity, status and recipe, for people.
        directories: Where artefacts stand, by kind; those that are gone, or were not asked for, are missing.
        system_prompt: The one it was trained with: asked without it, a model gives other answers than those scored.
    """

    told: str
    directories: dict[str, Path]
    system_prompt: str


def known_releases(store: ArtifactStore, product: str, history: Collection[Entry]) -> list[ArtefactRef]:
    """The releases of a product that were decided about, and the one made last."""
    newest = latest(store.ledger, product, RELEASE_BUNDLE.name)
    decided = [entry.release for entry in history if entry.release]
    return list(dict.fromkeys(decided + ([newest] if newest else [])))


def to_ask(
    store: ArtifactStore, product: str, release: str = "", variant: str = "", *, fetched: Collection[str] = STEPS
) -> Asked:
    """The models to talk to.

    Args:
        store: Where artefacts stand.
        product: Whose.
        release: Identity of a release or how it begins, or the folder of a bundle; `LATEST`: what was made last; "":
            the champion, and where there is none, what was made last.
        variant: Of what was made last, the one that is wanted; "": int4, and where there is none, any.
        fetched: Kinds of artefacts that are needed here; those that stand elsewhere may be gigabytes.

    Raises:
        UserError: There is no such release, or what was made last was made of different artefacts of one kind.
        DamagedArtefact: An artefact is damaged.
    """
    history = Champion(store.ledger, product).history()
    chosen: ArtefactRef | None = None
    if release not in ("", LATEST):
        chosen = find_release(known_releases(store, product, history), release)
    elif not release and (entry := present(history)):
        chosen = entry.release
    if chosen is not None:
        about = last_about(history, chosen)
        # Told by the decision: manifests of old releases do not say it.
        said = about.decision.get("made_of", {}) if about else {}
        refs = {kind: ArtefactRef(**ref) for kind, ref in said.items()} or lineage(store, chosen)
        recipe = about.decision.get("recipe") if about else latest_recipe(store.ledger, product, RELEASE_BUNDLE.name)
        status = status_of(history, chosen)
        return _asked(store, refs, f"release {chosen.identity[:SHORT]} of {product}, {status}", recipe, fetched)
    tops = [_TOP[variant]] if variant else [ONNX_INT4_MODEL.name, *reversed(_TOP.values())]
    for top in tops:
        ref = latest(store.ledger, product, top)
        if ref is not None:
            told = f"{top} {ref.identity[:SHORT]} of {product}, made last"
            return _asked(store, lineage(store, ref), told, latest_recipe(store.ledger, product, top), fetched)
    return Asked(f"nothing was made for {product} yet", {}, "")


def _asked(
    store: ArtifactStore, refs: Mapping[str, ArtefactRef], told: str, recipe: str | None, fetched: Collection[str]
) -> Asked:
    standing = {name: one for name, one in refs.items() if store.find(one.kind, one.identity)}
    corpus = standing.get(FORMATTED_CORPUS.name)
    manifest = store.find(corpus.kind, corpus.identity) if corpus else None
    prompt = str(manifest.call.params["system_prompt"]) if manifest else ""
    with_recipe = f"{told}, recipe {recipe}" if recipe else told
    return Asked(with_recipe, {name: store.fetch(one) for name, one in standing.items() if name in fetched}, prompt)
