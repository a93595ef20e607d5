"""What starts by itself: the sensor that starts a retrain when new data has come to rest."""

import time

import dagster as dg

from phi3_assets.automation.jobs import retrain
from phi3_assets.automation.watch import Cursor, decide
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.runs import end_dead_runs
from phi3_assets.resources.store import ArtifactStore

SETTLE_S = 10


@dg.sensor(job=retrain, minimum_interval_seconds=30)
def new_data(context: dg.SensorEvaluationContext, recipe: RecipeResource, store: ArtifactStore) -> dg.SensorResult:
    """Starts one run for each new version of the files in the recipe's dataset folder, once they are at rest.

    Content decides: a file that was only touched starts nothing. A run that failed is not started again.
    """
    directory = store.datasets_path(recipe.load().dataset_path, context.log.info)
    decision = decide(directory, Cursor.parse(context.cursor), time.time(), SETTLE_S)
    if decision.digest is None:
        return dg.SensorResult(skip_reason=decision.reason, cursor=decision.cursor.dump())
    context.log.info(decision.reason)
    # No run_key: Dagster would remember it for ever, and data that returns to an earlier version would never run.
    request = dg.RunRequest(tags={"phi3/data_version": decision.digest[:12], "phi3/why": decision.reason[:200]})
    return dg.SensorResult(run_requests=[request], cursor=decision.cursor.dump())


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def dead_runs(context: dg.SensorEvaluationContext, store: ArtifactStore) -> dg.SkipReason:
    """Ends runs whose process was killed, whatever launched them, so that none stays "started" for ever.

    Looks as soon as the daemon is up and every 30 seconds from then on. It starts nothing.
    """
    assert context.repository_def is not None
    ended = end_dead_runs(context.instance, store.home_path, context.repository_def.get_all_jobs())
    return dg.SkipReason(f"Ended, for their process is gone: {', '.join(ended)}." if ended else "No run is dead.")
