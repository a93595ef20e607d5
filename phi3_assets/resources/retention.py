"""What finished runs leave behind, and for how long: 1.4 MB and 20 files each, even of a run that made nothing.

Deleting a run from Dagster deletes its materialisations from the assets' history, and the present data version with
them. So runs that made something new stay in the book for ever, and of those only the console's logs and the pointers
that its ops handed to one another are removed; a run that only found everything standing is deleted whole, unless it is
the newest of an asset.
"""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from phi3_assets.core.ledger import Ledger, run_key
from phi3_assets.core.locks import is_held
from phi3_assets.resources.runs import runs_dir

KEEP_DAYS = 30
KEEP_RUNS = 200
# On runs of which nothing more is to be removed.
RETIRED_TAG = "phi3/retired"
FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def retire_runs(
    instance: dg.DagsterInstance,
    home: Path,
    ledger: Ledger,
    keep_days: float = KEEP_DAYS,
    keep_runs: int = KEEP_RUNS,
    at_most: int | None = None,
) -> int:
    """Remove what old finished runs left behind.

    Args:
        instance: Whose runs.
        home: PHI3_HOME.
        ledger: Holds what their ops handed to one another.
        keep_days: Runs that ended longer ago are retired.
        keep_runs: So are those that are not among this many newest.
        at_most: Stop after this many; a sensor has a minute.

    Returns:
        How many runs were retired now.
    """
    before = datetime.now(UTC) - timedelta(days=keep_days)
    retired = 0
    for number, record in enumerate(instance.get_run_records(dg.RunsFilter(statuses=FINISHED))):
        run = record.dagster_run
        ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.update_timestamp
        if RETIRED_TAG in run.tags or (number < keep_runs and _utc(ended) > before):
            continue
        if retired == at_most:
            break
        _remove_side_files(instance, ledger, run.run_id)
        if _made_something(instance, run.run_id):
            instance.add_run_tags(run.run_id, {RETIRED_TAG: "true"})
        elif not _is_newest_of_an_asset(instance, run.run_id):
            _delete(instance, run.run_id)
        else:
            continue  # and looked at again when another is the newest
        retired += 1
    _remove_locks(instance, home, before)
    return retired


def _made_something(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether it has a materialisation that does not say that the artefact stood already."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [entry.asset_materialization for entry in entries]
    return any(
        item is not None and ("reused" not in item.metadata or item.metadata["reused"].value is not True)
        for item in made
    )


def _is_newest_of_an_asset(instance: dg.DagsterInstance, run_id: str) -> bool:
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
        key = entry.get_dagster_event().asset_key
        newest = instance.get_latest_materialization_event(key) if key else None
        if newest is not None and newest.run_id == run_id:
            return True
    return False


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    # Here, because it imports SQLAlchemy, half a second for everybody who loads the code location.
    from dagster._core.storage.event_log import SqliteEventLogStorage

    storage = instance.event_log_storage
    instance.delete_run(run_id)
    if isinstance(storage, SqliteEventLogStorage):
        # Dagster empties the run's own file, and leaves it there at its full size.
        shard = Path(storage.path_for_shard(run_id))
        for file in shard.parent.glob(f"{shard.name}*"):
            file.unlink(missing_ok=True)


def _remove_side_files(instance: dg.DagsterInstance, ledger: Ledger, run_id: str) -> None:
    """The console's output, and what its ops handed to one another."""
    instance.compute_log_manager.delete_logs(prefix=[run_id, "compute_logs"])
    ledger.remove(run_key(f"{run_id}.json"))
    folder = Path(instance.storage_directory()) / run_id
    if folder.exists():
        shutil.rmtree(folder)


def _remove_locks(instance: dg.DagsterInstance, home: Path, before: datetime) -> None:
    """Locks of runs that have ended, and old ones of runs that are in no book of ours."""
    for path in runs_dir(home).glob("*.lock"):
        run = instance.get_run_by_id(path.stem)
        old = datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
        if (run.is_finished if run is not None else old) and not is_held(path):
            path.unlink(missing_ok=True)


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
