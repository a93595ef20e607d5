"""What the graph begins with and does not make."""

import warnings

import dagster as dg

from phi3_assets.ops.observing import observe
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

with warnings.catch_warnings():
    # Beta in Dagster 1.13, and the only asset that tells of new data without making anything.
    warnings.simplefilter("ignore", dg.BetaWarning)

    @dg.observable_source_asset(
        group_name="inputs",
        description="The user's files, in PHI3_HOME/datasets or where the recipe's dataset_path says. Observed when "
        "new data has come to rest; until it is trained on, what is made of it shows as unsynced.",
        # Each look is a run in the list of runs, of which the newest are kept.
        automation_condition=dg.AutomationCondition.on_cron("@hourly"),
        tags={"dagster/kind/file": ""},
    )
    def datasets(recipe: RecipeResource, store: ArtifactStore) -> dg.ObserveResult:
        """Look at the files, every hour where the sensor follow_data is on."""
        return observe(recipe, store)
