"""Which runs are alive, and the end of those that are not.

The process that executes a run holds a kernel lock, work/runs/<run id>.lock of the home, until it ends. A run that goes
on by Dagster's book while nobody holds its lock is dead beyond doubt, whoever launched it and under whatever host name.
Dagster itself looks after no run of its default launcher: such a run stays STARTED for ever.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from phi3_assets.core.locks import Holder, Lock, is_held, locked, try_lock

# As workspace.yaml and pyproject.toml name them.
LOCATION, LOCATION_MODULE = "phi3_assets", "phi3_assets.definitions"
# On runs that were ended here; the sensor for new data comes back to what such a run was to make.
KILLED_TAG = "phi3/killed"
KILLED = "The process that executed this run is gone: it was killed, or its machine or container was stopped."
GOING_ON = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

# Of this process. Kept until it ends and not until the run's resources are torn down: Dagster writes the run's end into
# its book after that, and in between the run would look dead.
_held: dict[str, Lock] = {}


@contextmanager
def open_instance(folder: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's instance in this folder; of processes that open it at once only one creates its databases.

    Dagster does not look whether another one is about to: both fail then, with "UNIQUE constraint failed".
    """
    with locked(folder / ".opening.lock", Holder(making="Dagster's databases")):
        instance = dg.DagsterInstance.from_config(str(folder))
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
    with instance:
        yield instance


def runs_dir(home: Path) -> Path:
    """Where the locks of this home's runs lie."""
    return home / "work" / "runs"


def hold_run(home: Path, run_id: str, instance: dg.DagsterInstance | None = None) -> None:
    """Say that this process executes the run; a second time does nothing.

    Args:
        home: PHI3_HOME.
        run_id: Id of the run.
        instance: Whose book says which runs have ended; their locks are let go.
    """
    for other in [other for other in _held if other != run_id and instance is not None]:
        run = instance.get_run_by_id(other) if instance else None
        if run is not None and run.is_finished:
            _held.pop(other).release()
    if run_id in _held:
        return
    # Locked first and named afterwards: at no moment is there a file of this name that nobody holds.
    path = runs_dir(home) / f"{run_id}.lock"
    new = path.with_name(f".{run_id}.{os.getpid()}")
    lock = try_lock(new, Holder(run_id))
    assert lock is not None
    os.replace(new, path)
    _held[run_id] = lock


def end_dead_runs(instance: dg.DagsterInstance, home: Path, jobs: Iterable[dg.JobDefinition]) -> list[str]:
    """Tell Dagster of the runs whose process is gone: failed, or canceled where that had been asked for.

    Args:
        instance: Whose runs.
        home: PHI3_HOME.
        jobs: All jobs. Only runs of those that execute in one process are judged: with other executors nobody holds
            the lock between two steps.

    Returns:
        Ids of the runs that were ended.
    """
    ended = []
    for run in dead_runs(instance, home, jobs):
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, KILLED)
        else:
            instance.add_run_tags(run.run_id, {KILLED_TAG: "true"})
            instance.report_run_failed(run, KILLED)
        ended.append(run.run_id)
    return ended


def dead_runs(instance: dg.DagsterInstance, home: Path, jobs: Iterable[dg.JobDefinition]) -> Iterator[dg.DagsterRun]:
    """The runs that go on by Dagster's book and whose process is gone; see `end_dead_runs`."""
    judged = {job.name for job in jobs if job.executor_def.name == dg.in_process_executor.name}
    for run in instance.get_runs(dg.RunsFilter(statuses=GOING_ON)):
        path = runs_dir(home) / f"{run.run_id}.lock"
        if run.job_name not in judged or not path.exists() or is_held(path):
            continue
        run = instance.get_run_by_id(run.run_id) or run
        if not run.is_finished:  # it may have ended between the two looks
            yield run


def show_in_timeline(instance: dg.DagsterInstance, run_id: str) -> None:
    """Say of a run that was started from a terminal that it is one of the code location's.

    Dagster notes that only where its webserver or daemon starts a run, and its first page, the timeline, shows no other
    runs: after `make run` it said "No runs".
    """
    from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
    from dagster._core.remote_origin import (
        ManagedGrpcPythonEnvCodeLocationOrigin,
        RemoteJobOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    run = instance.get_run_by_id(run_id)
    assert run is not None
    location = ManagedGrpcPythonEnvCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, module_name=LOCATION_MODULE), LOCATION
    )
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME), run.job_name)
    instance.run_storage.replace_job_origin(run, origin)
