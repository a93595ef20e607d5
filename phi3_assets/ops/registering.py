"""A champion as a version of a model of the workspace, where a recipe wants that (register_model)."""

from collections.abc import Mapping
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import read_json
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.step import sha256_of
from phi3_assets.release.history import Entry
from phi3_assets.resources.store import ArtifactStore

KEY = "register"
"""In a decision: what its release is to be registered as, for a person who approves it later."""
_SCORES = "scores.json"
_OF_INT4 = ("nll", "exact_match", "f1", "stop_rate", "general_nll")


def refuse_unregistrable(recipe: Recipe, store: ArtifactStore) -> None:
    """Say before anything is made that its release could not be registered.

    Raises:
        UserError: The recipe wants it registered, and the store is on a disk.
    """
    if recipe.register_model and not store.elsewhere:
        raise UserError(
            f"register_model {recipe.register_model!r}: a release is registered by its address in a datastore, and "
            "this store is on a disk. Set PHI3_STORE=azure_blob, or leave register_model empty."
        )


def wanted(recipe: Recipe) -> dict[str, Any]:
    """What a decision keeps of the recipe's wish; empty where there is none."""
    if not recipe.register_model:
        return {}
    return {KEY: {"model": recipe.register_model, "recipe": sha256_of(recipe.model_dump())}}


def register_champion(entry: Entry, product: str, store: ArtifactStore, wish: Mapping[str, Any]) -> str | None:
    """Register the release of an entry that made it the champion.

    Args:
        entry: Of the champion's history.
        product: Whose champion.
        store: Where the release stands.
        wish: See `wanted`.

    Returns:
        Name and version of the model; None where nothing is to be registered.

    Raises:
        UserError, TransientError: It cannot be; the release is champion all the same.
    """
    if KEY not in wish or entry.release is None or entry.report is None:
        return None
    from phi3_assets.resources.azureml_registry import register
    from phi3_assets.resources.blob_store import BlobArtifactStore

    if not isinstance(store, BlobArtifactStore):
        raise UserError(f"Release {entry.release.identity} is to be registered, and this store is on a disk.")
    scores = read_json(store.peek(entry.report, _SCORES) / _SCORES)
    tags = {
        "phi3/digest": entry.release.digest,
        "phi3/product": product,
        "phi3/recipe": wish[KEY]["recipe"],
        "phi3/promoted_at": entry.at,
        **{f"phi3/made_of/{kind}": ref["identity"] for kind, ref in entry.decision.get("made_of", {}).items()},
        **{f"phi3/int4/{name}": f"{scores['variants']['int4'][name]:.6g}" for name in _OF_INT4},
        "phi3/int4_gain_kept": str(scores["int4_gain_kept"]),
        "phi3/test_items": str(scores["items"]),
    }
    return register(store, wish[KEY]["model"], entry.release, f"{product}: {entry.sentence}", tags)
