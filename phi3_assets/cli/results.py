"""What stands in a home, for the commands: the models to ask, the champion, where artefacts are."""

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from phi3_assets.chat.engines import INPUTS
from phi3_assets.core.errors import UserError
from phi3_assets.core.files import json_text
from phi3_assets.core.home import SHORT, prepare_home
from phi3_assets.core.ledger import products
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.release.champion import Champion, Check
from phi3_assets.release.history import Entry
from phi3_assets.resources.lineage import lineage
from phi3_assets.resources.origin import find_release, origin_of, told
from phi3_assets.resources.pointers import latest
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.resources.stores import make_store
from phi3_assets.steps import FORMATTED_CORPUS, ONNX_INT4_MODEL, RELEASE_BUNDLE, STEPS

# The last artefact of each variant: what it was made of is known from there on.
_TOP = {variant: names[-1] for variant, names in INPUTS.items()}


@dataclass(frozen=True)
class Lineage:
    """Artefacts that were made of one another, so they may be asked side by side.

    Attributes:
        told: What it is, for people.
        directories: Where artefacts stand, by kind; those that are gone, or were not asked for, are missing.
        system_prompt: The one it was trained with: asked without it, a model gives other answers than those scored.
    """

    told: str
    directories: dict[str, Path]
    system_prompt: str


def store_of(home: Path | None) -> ArtifactStore:
    """The store that the environment names, with this home; None: PHI3_HOME, else ./home."""
    return make_store(home)


def product_of(home: Path | None, product: str) -> str:
    """The product that a command is about: the one named, else that of the recipe in PHI3_RECIPE, else the only one.

    Raises:
        UserError: The home has several, and nothing says which.
    """
    if product or os.environ.get("PHI3_RECIPE"):
        return product or load_recipe().product
    known = products(store_of(home).ledger)
    if len(known) > 1:
        raise UserError(f"This home has several products; name one with --product: {', '.join(known)}.")
    return known[0] if known else load_recipe().product


def champion_of(home: Path | None, product: str) -> Champion:
    """The champion of a product of this home, and its history."""
    return Champion(store_of(home).ledger, product_of(home, product))


def to_ask(
    home: Path | None, product: str, variant: str = "", *, newest: bool = False, fetched: Collection[str] = STEPS
) -> Lineage:
    """The models to talk to: the champion and what it was made of; where there is none, or `newest`, what came last.

    Args:
        home: PHI3_HOME.
        product: Whose; "": the default recipe's.
        variant: With `newest`, what came last of this variant; "": of int4, else of any.
        newest: Not the champion.
        fetched: Kinds of artefacts that are needed here; those that stand elsewhere may be gigabytes.

    Raises:
        UserError: An artefact is damaged.
    """
    store, name = store_of(home), product_of(home, product)
    present = None if newest else Champion(store.ledger, name).present()
    if present is not None and present.release is not None:
        # Told by the decision: manifests of old releases do not say it.
        refs = {kind: ArtefactRef(**ref) for kind, ref in present.decision.get("made_of", {}).items()}
        return _lineage(store, refs, f"champion {present.release.identity[:SHORT]} of {name}", fetched)
    tops = [_TOP[variant]] if variant else [ONNX_INT4_MODEL.name, *reversed(_TOP.values())]
    for top in tops:
        ref = latest(store.ledger, name, top)
        if ref is not None:
            return _lineage(store, lineage(store, ref), f"{top} {ref.identity[:SHORT]}, made last for {name}", fetched)
    return Lineage(f"nothing was made for {name} yet", {}, "")


def _lineage(store: ArtifactStore, refs: Mapping[str, ArtefactRef], told: str, fetched: Collection[str]) -> Lineage:
    standing = {name: one for name, one in refs.items() if store.find(one.kind, one.identity)}
    corpus = standing.get(FORMATTED_CORPUS.name)
    manifest = store.find(corpus.kind, corpus.identity) if corpus else None
    prompt = str(manifest.call.params["system_prompt"]) if manifest else ""
    return Lineage(told, {name: store.fetch(one) for name, one in standing.items() if name in fetched}, prompt)


def release_of(champion: Champion) -> ArtefactRef:
    """The release that is champion.

    Raises:
        UserError: There is none.
    """
    present = champion.present()
    if present is None or present.release is None:
        raise UserError(
            f"Product {champion.product} has no champion in this home yet: `phi3 run` makes a release, and a fit one "
            "becomes it."
        )
    return present.release


def tell_origin(home: Path | None, product: str, release: str, *, as_json: bool) -> str:
    """Where a release comes from, down to the user's files.

    Args:
        home: PHI3_HOME.
        product: Whose; see `product_of`.
        release: Identity or how it begins, or the folder of a bundle that was handed out; "": the champion.
        as_json: All that is known, and not for people.

    Raises:
        UserError: There is no such release.
    """
    store, champion = store_of(home), champion_of(home, product)
    newest = latest(store.ledger, champion.product, RELEASE_BUNDLE.name)
    known = [entry.release for entry in champion.history() if entry.release] + ([newest] if newest else [])
    found = find_release(list(dict.fromkeys(known)), release) if release else release_of(champion)
    origin = origin_of(store, found)
    return json_text(origin.to_dict()) if as_json else told(origin)


def change_champion(home: Path | None, product: str, change: Callable[[Champion, Check], Entry]) -> str:
    """Change the champion by a person's word, and let Dagster know: it is a materialisation of the asset.

    Args:
        home: PHI3_HOME.
        product: Whose champion; see `product_of`.
        change: What is done to it; gets a function that verifies an artefact.

    Returns:
        Who is champion now.
    """
    from phi3_assets.ops.promotion import report_champion
    from phi3_assets.ops.registering import register_champion

    store, champion = store_of(home), champion_of(home, product)
    entry = change(champion, store.verify)
    prepare_home(store.home_path)
    report_champion(entry, champion.product)
    if entry.action == "promote" and (model := register_champion(entry, champion.product, store, entry.decision)):
        print(f"Registered as model {model}.")
    return f"Champion of {champion.product}: {store.where(entry.release) if entry.release else 'none'}"
