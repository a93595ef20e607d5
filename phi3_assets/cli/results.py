"""What stands in a home, for the commands: the models to ask, the champion, where artefacts are."""

import os
from collections.abc import Callable, Collection
from pathlib import Path

from phi3_assets.chat.serving import Which
from phi3_assets.core.errors import UserError
from phi3_assets.core.files import json_text
from phi3_assets.core.home import prepare_home
from phi3_assets.core.ledger import products
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.release.champion import Champion, Check
from phi3_assets.release.history import Entry
from phi3_assets.resources.asked import Asked, known_releases, to_ask
from phi3_assets.resources.origin import find_release, origin_of, told
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.resources.stores import make_store
from phi3_assets.steps import STEPS


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


def asked_of(home: Path | None, which: Which, variant: str = "", *, fetched: Collection[str] = STEPS) -> Asked:
    """The models to talk to; see `to_ask`."""
    return to_ask(store_of(home), product_of(home, which.product), which.release, variant, fetched=fetched)


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
    known = known_releases(store, champion.product, champion.history())
    found = find_release(known, release) if release else release_of(champion)
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
