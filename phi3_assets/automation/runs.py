"""What Dagster's runs say about data versions: which were read, which goes on, which failed for a reason that may pass.

Runs say themselves what they are about, in tags (`phi3_assets.ops.run_tags`), whoever started them.
"""

import datetime as dt
from dataclasses import replace

import dagster as dg

from phi3_assets.automation.watch import DAY_S, PastRun
from phi3_assets.ops.run_tags import DATA_VERSION_TAG, PRODUCT_TAG, RECIPE_TAG
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets.resources.runs import GOING_ON, KILLED_TAG

ATTEMPT_TAG = "phi3/attempt"
"""On runs that the sensor asked for."""
_ENDS = frozenset({dg.AssetKey("raw_dataset"), dg.AssetKey("champion")})
"""A run that does not go from one to the other is no retrain."""
_LOOKED_AT = 50
"""Newest runs that are looked at: those of a part of the graph count for nothing and are among them."""


def past_runs(instance: dg.DagsterInstance, product: str, recipe: str, version: str) -> list[PastRun]:
    """Runs of the whole graph with this product and recipe, newest first, and those that do not say yet what they are.

    Args:
        instance: Whose runs.
        product: The recipe's.
        recipe: As `RecipeResource.told` says it: name and overrides.
        version: The data version whose last run is asked why it failed, if it did; to look costs time.
    """
    mine = instance.get_run_records(dg.RunsFilter(tags={PRODUCT_TAG: product, RECIPE_TAG: recipe}), limit=_LOOKED_AT)
    waiting = [dg.DagsterRunStatus.QUEUED, *GOING_ON]
    begun = instance.get_run_records(dg.RunsFilter(statuses=waiting), limit=_LOOKED_AT)
    silent = [record for record in begun if PRODUCT_TAG not in record.dagster_run.tags]
    records = sorted((*mine, *silent), key=lambda record: -record.storage_id)
    runs = [_past_run(record) for record in records if _is_retrain(record.dagster_run)]
    last = next((number for number, run in enumerate(runs) if run.version == version), None)
    if last is not None and (run := instance.get_run_by_id(runs[last].run)) is not None:
        failed = run.status == dg.DagsterRunStatus.FAILURE
        runs[last] = replace(runs[last], failed_transiently=failed and failed_transiently(instance, run))
    return runs


def started_by(instance: dg.DagsterInstance, sensor: str, product: str, now_s: float) -> list[float]:
    """When a sensor started runs for a product within the last 24 hours: Unix time, oldest first."""
    day = dt.datetime.fromtimestamp(now_s - DAY_S, dt.UTC)
    tags = {"dagster/sensor_name": sensor, PRODUCT_TAG: product}
    records = instance.get_run_records(dg.RunsFilter(tags=tags, created_after=day))
    return sorted(record.create_timestamp.timestamp() for record in records)


def _is_retrain(run: dg.DagsterRun) -> bool:
    return run.asset_selection >= _ENDS if run.asset_selection else run.job_name == "retrain"


def _past_run(record: dg.RunRecord) -> PastRun:
    run = record.dagster_run
    return PastRun(
        run=run.run_id,
        version=run.tags.get(DATA_VERSION_TAG, ""),
        counts=ATTEMPT_TAG in run.tags or run.status == dg.DagsterRunStatus.SUCCESS,
        attempt=int(run.tags.get(ATTEMPT_TAG, "1")),
        ended_s=record.end_time if run.is_finished else None,
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
