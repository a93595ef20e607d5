"""Looking at the dataset folder: for the sensor, which has a minute, and for the asset `datasets`, which has more."""

import time

import dagster as dg

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.recipe import Recipe
from phi3_assets.data.read.remote import is_remote, list_remote
from phi3_assets.data.watched.folder import Reading, Seen, look, look_remote
from phi3_assets.data.watched.memory import Memory, Notes
from phi3_assets.ops.run_tags import DATASETS_ASSET
from phi3_assets.resources.execution import readable_errors
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

SETTLE_S = 10.0
"""How long a file must look the same, in seconds, to be at rest."""
_TRIES = 30


def notes_of(recipe: Recipe, store: ArtifactStore) -> Notes:
    """What is remembered of the recipe's dataset folder."""
    return Notes(store.home_path, recipe.product, recipe.dataset_path)


def watch(recipe: Recipe, store: ArtifactStore, now_s: float, read_s: float) -> tuple[Seen, Memory]:
    """Look at the recipe's dataset folder, and keep what was seen for the next time.

    Args:
        recipe: Names the folder.
        store: Knows the home.
        now_s: Unix time.
        read_s: How long files may be read, in seconds.

    Returns:
        What was seen, and what is remembered of it: the data version, and since when.

    Raises:
        UserError: The folder cannot be listed or read.
        TransientError: Azure cannot be reached.
    """
    notes = notes_of(recipe, store)
    known = notes.last()
    if is_remote(recipe.dataset_path):
        seen = look_remote(list_remote(recipe.dataset_path), known.files, now_s, SETTLE_S)  # a run fetches
    else:
        count_rows = recipe.retrain_min_new_rows > 0
        reading = Reading(SETTLE_S, time.monotonic() + read_s, count_rows, recipe.dataset_encoding)
        seen = look(store.datasets_path(recipe.dataset_path), known.files, now_s, reading)
    version = known.version if seen.files == known.files else seen.version  # of 100,000 files it takes a while
    # Where the clock was put back, the quiet period begins anew.
    since_s = known.since_s if version == known.version and known.since_s <= now_s else now_s
    now = Memory(seen.files, version, since_s)
    if now != known:
        notes.keep(now)
    return seen, now


def observe(recipe_resource: RecipeResource, store: ArtifactStore) -> dg.ObserveResult:
    """The data version of the recipe's dataset folder, once it is at rest.

    Raises:
        dagster.Failure: The folder cannot be read, holds no file, or is being written all the time.
    """
    with readable_errors():
        recipe = recipe_resource.load()
        for _ in range(_TRIES):
            seen, now = watch(recipe, store, time.time(), float("inf"))
            if now.version:
                version = dg.DataVersion(now.version[:SHORT])
                return dg.ObserveResult(data_version=version, metadata={"files": len(seen.files)})
            if not seen.files:
                raise UserError("The dataset folder holds no data file yet.")
            time.sleep(SETTLE_S)
        raise TransientError(f"{seen.restless} is being written all the time; the folder is not at rest.")


def observation(version: str) -> dg.AssetObservation:
    """That the dataset folder was seen in this version: the UI shows what is made of an earlier one as unsynced."""
    return dg.AssetObservation(DATASETS_ASSET, tags={"dagster/data_version": version})
