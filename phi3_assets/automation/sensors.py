"""What goes by itself: a retrain when new data has come to rest, and the end of runs that nobody executes any more."""

import time

import dagster as dg

from phi3_assets.automation.jobs import retrain
from phi3_assets.automation.watch import Cursor, LastRun, decide, decide_remote, try_again
from phi3_assets.data.read.remote import is_remote, list_remote
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.retention import retire_runs
from phi3_assets.resources.runs import KILLED_TAG, end_dead_runs
from phi3_assets.resources.store import ArtifactStore

SETTLE_S = 10
# A tick has a minute.
RETIRED_A_TICK = 50
DATA_VERSION_TAG = "phi3/data_version"
ATTEMPT_TAG = "phi3/attempt"


@dg.sensor(job=retrain, minimum_interval_seconds=30)
def new_data(context: dg.SensorEvaluationContext, recipe: RecipeResource, store: ArtifactStore) -> dg.SensorResult:
    """Starts one run for each new version of the files in the recipe's dataset folder, once they are at rest.

    Content decides: a file that was only touched starts nothing. A run that failed for a reason that may pass, such as
    a hub that was away, is started again after 5 minutes, after 30 and after 2 hours; no other is.
    """
    dataset_path = recipe.load().dataset_path
    cursor = Cursor.parse(context.cursor)
    if is_remote(dataset_path):
        decision = decide_remote(list_remote(dataset_path), cursor)  # the run fetches: a tick has a minute
    else:
        decision = decide(store.datasets_path(dataset_path, context.log.info), cursor, time.time(), SETTLE_S)
    if decision.at_rest:
        decision = try_again(decision, last_run(context.instance, decision.cursor.digest), time.time())
    if decision.digest is None:
        return dg.SensorResult(skip_reason=decision.reason, cursor=decision.cursor.dump())
    context.log.info(decision.reason)
    # No run_key: Dagster would remember it for ever, and data that returns to an earlier version would never run.
    request = dg.RunRequest(
        tags={
            DATA_VERSION_TAG: decision.digest[:12],
            ATTEMPT_TAG: str(decision.attempt),
            "phi3/why": decision.reason[:200],
        }
    )
    return dg.SensorResult(run_requests=[request], cursor=decision.cursor.dump())


def last_run(instance: dg.DagsterInstance, digest: str) -> LastRun | None:
    """The newest run that was asked for this data version; a re-execution by hand keeps its tags and is one, too."""
    records = instance.get_run_records(dg.RunsFilter(tags={DATA_VERSION_TAG: digest[:12]}), limit=1)
    if not records:
        return None
    run, ended_s = records[0].dagster_run, records[0].end_time
    return LastRun(
        attempt=int(run.tags.get(ATTEMPT_TAG, "1")),
        failed_transiently=run.status == dg.DagsterRunStatus.FAILURE and failed_transiently(instance, run),
        ended_s=ended_s if run.is_finished else None,
    )


def failed_transiently(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether a failed run was killed, or every step of it that failed said that its reason may pass."""
    if KILLED_TAG in run.tags:
        return True
    failures = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    said = [entry.get_dagster_event().step_failure_data.user_failure_data for entry in failures]
    return bool(said) and all(
        data is not None and TRANSIENT in data.metadata and data.metadata[TRANSIENT].value is True for data in said
    )


@dg.sensor(minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
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
