"""What runs say in tags: of themselves, for people and for the sensor, and of the data version that they read."""

from collections.abc import Mapping

import dagster as dg

PRODUCT_TAG = "phi3/product"
RECIPE_TAG = "phi3/recipe"
DATA_VERSION_TAG = "phi3/data_version"
STARTED_BY_TAG = "phi3/started_by"
"""On runs of `phi3 run`; Dagster itself says which sensor, schedule or person started any other."""
DATASETS_ASSET = "datasets"


def tag_run(context: dg.OpExecutionContext | dg.AssetExecutionContext, tags: Mapping[str, str]) -> None:
    """Set tags of the running run, unless they stand there already."""
    new = {name: value for name, value in tags.items() if context.run.tags.get(name) != value}
    if new:
        context.instance.add_run_tags(context.run.run_id, new)


def read_tags(version: str) -> dict[str, str]:
    """Tags of a materialisation that was made of this version of the dataset folder.

    Dagster itself takes the version that was observed when the step began: data that changed since then, or was never
    observed, would show what was just made of it as unsynced.
    """
    return {f"dagster/input_data_version/{DATASETS_ASSET}": version}
