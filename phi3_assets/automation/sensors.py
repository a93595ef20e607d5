"""What goes by itself: a retrain when new data has come to rest, and the end of runs that nobody executes any more."""

import time
from dataclasses import replace

import dagster as dg

from phi3_assets.automation.jobs import retrain
from phi3_assets.automation.runs import ATTEMPT_TAG, past_runs, started_by
from phi3_assets.automation.watch import Cursor, Limits, News, account, decide
from phi3_assets.core.home import SHORT
from phi3_assets.data.watched.changes import find_changes
from phi3_assets.data.watched.folder import Seen
from phi3_assets.ops.observing import SETTLE_S, notes_of, observation, watch
from phi3_assets.ops.run_tags import DATA_VERSION_TAG, PRODUCT_TAG, RECIPE_TAG
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.retention import retire_runs
from phi3_assets.resources.runs import end_dead_runs
from phi3_assets.resources.store import ArtifactStore

# A tick has a minute.
READING_S = 20.0
RETIRED_A_TICK = 50
_WHY_CHARACTERS = 200


@dg.sensor(
    job=retrain,
    minimum_interval_seconds=30,
    description="Retrains once for each new version of the recipe's data, when its files have come to rest.",
)
def new_data(context: dg.SensorEvaluationContext, recipe: RecipeResource, store: ArtifactStore) -> dg.SensorResult:
    """Retrains once for each new version of the files in the recipe's dataset folder, when they have come to rest.

    Content decides: a file that was only touched starts nothing, and neither does data that a run by hand has read
    already. The recipe can hold a retrain back: retrain_min_new_rows, retrain_quiet_minutes, retrain_runs_a_day. A run
    that failed for a reason that may pass, such as a hub that was away, is started again after 5 minutes, after 30 and
    after 2 hours; no other is.
    """
    chosen = recipe.load()
    now_s = time.time()
    seen, now = watch(chosen, store, now_s, READING_S)
    version = now.version[:SHORT]
    if not version:
        return dg.SensorResult(skip_reason=_not_at_rest(seen), cursor=context.cursor)
    runs = past_runs(context.instance, chosen.product, recipe.told(), version)
    before = Cursor.parse(context.cursor, chosen.product)
    cursor = replace(account(before, runs), observed=version)
    told = [observation(version)] if version != before.observed else []
    notes = notes_of(chosen, store)
    if version == cursor.asked and cursor != before:  # by hand, perhaps: what comes next is compared with it
        notes.keep_asked(version, seen.files)
    asked = notes.asked(cursor.asked) if version != cursor.asked else None
    news = News(version, len(seen.files), now.since_s, find_changes(asked, seen.files) if asked is not None else None)
    limits = Limits(chosen.retrain_min_new_rows, 60 * chosen.retrain_quiet_minutes, chosen.retrain_runs_a_day)
    started_s = started_by(context.instance, new_data.name, chosen.product, now_s) if limits.runs_a_day else []
    decision = decide(news, cursor, runs, started_s, limits, now_s)
    if not decision.start:
        return dg.SensorResult(skip_reason=decision.reason, cursor=decision.cursor.dump(), asset_events=told)
    notes.keep_asked(version, seen.files)
    context.log.info(decision.reason)
    # No run_key: Dagster would remember it for ever, and data that returns to an earlier version would never run.
    request = dg.RunRequest(
        tags={
            PRODUCT_TAG: chosen.product,
            RECIPE_TAG: recipe.told(),
            DATA_VERSION_TAG: decision.cursor.asked,
            ATTEMPT_TAG: str(decision.attempt),
            "phi3/why": decision.reason[:_WHY_CHARACTERS],
        }
    )
    return dg.SensorResult(run_requests=[request], cursor=decision.cursor.dump(), asset_events=told)


def _not_at_rest(seen: Seen) -> str:
    if seen.restless:
        return f"{seen.restless} may still be being written: it is read once it looks the same for {SETTLE_S:g} s."
    if seen.unread:
        return f"{seen.unread} of {len(seen.files)} files are not read yet; a tick reads for {READING_S:g} s."
    return "The dataset folder holds no data file yet."


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ends runs whose process was killed, and clears away what old runs left behind; starts nothing.",
)
def runs_in_order(context: dg.SensorEvaluationContext, store: ArtifactStore) -> dg.SensorResult:
    """Ends runs whose process was killed, and once a day clears away what old runs left behind; starts nothing.

    Looks as soon as the daemon is up, and every 30 seconds from then on, so that no dead run stays "started".
    """
    assert context.repository_def is not None
    said = []
    if ended := end_dead_runs(context.instance, store.home_path, context.repository_def.get_all_jobs()):
        said.append(f"Ended, for their process is gone: {', '.join(ended)}.")
    today = time.strftime("%Y-%m-%d", time.gmtime())
    cursor = context.cursor
    if cursor != today:
        retired = retire_runs(context.instance, store.home_path, store.ledger, at_most=RETIRED_A_TICK)
        if retired:
            said.append(f"Cleared away what {retired} old runs left behind.")
        if retired < RETIRED_A_TICK:
            cursor = today
    return dg.SensorResult(skip_reason=" ".join(said) or "All runs are in order.", cursor=cursor)
