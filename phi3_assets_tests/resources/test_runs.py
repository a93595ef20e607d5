"""A run whose process is gone is ended, whoever launched it; a run that lives is never touched.

Real processes that execute a real run and are killed; a fault here would end somebody's training.
"""

import os
import subprocess
import sys
import time

import dagster as dg
import pytest

from phi3_assets.core.locks import is_held
from phi3_assets.resources.runs import KILLED_TAG, end_dead_runs, hold_run, runs_dir
from phi3_assets_tests.conftest import clean_env

ENDLESS = """
import sys, time
import dagster as dg
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.store import ArtifactStore

@dg.op
def endless(context: dg.OpExecutionContext, store: ArtifactStore) -> None:
    print(context.run.run_id, flush=True)
    time.sleep(1000)

@dg.job(executor_def=dg.in_process_executor, resource_defs={"store": LocalArtifactStore(home=sys.argv[1])})
def work():
    endless()

with dg.DagsterInstance.get() as instance:
    work.execute_in_process(instance=instance)
"""
ELSEWHERE = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]


def job(executor):
    @dg.op
    def endless():
        pass

    @dg.job(name="work", executor_def=executor)
    def work():
        endless()

    return work


IN_PROCESS = job(dg.in_process_executor)


@pytest.fixture
def book(tmp_path):
    """A Dagster instance in a folder, which other processes open too."""
    (tmp_path / ".dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / ".dagster")) as instance:
        yield instance


@pytest.fixture
def start(tmp_path, book):
    """Starts a run that never ends in a process of its own; gives the process and the run's id."""
    started = []

    def run(before=()):
        process = subprocess.Popen(
            [*before, sys.executable, "-c", ENDLESS, str(tmp_path / "home")],
            env=clean_env(DAGSTER_HOME=str(tmp_path / ".dagster"), DAGSTER_DISABLE_TELEMETRY="1"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        return process, process.stdout.readline().strip()

    yield run
    for process in started:
        process.kill()
        process.wait()


def kill(process, home, run_id):
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while is_held(runs_dir(home) / f"{run_id}.lock") and time.monotonic() < deadline:
        time.sleep(0.05)


@pytest.mark.parametrize("before", [(), ELSEWHERE], ids=["here", "under another host name"])
def test_a_live_run_is_left_alone_and_a_killed_one_is_ended(start, book, tmp_path, before):
    """Only runs of `phi3 run` under this host name were ended; a replaced container's run was "started" for ever."""
    if before and subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("name spaces are not permitted here")
    home = tmp_path / "home"
    process, run_id = start(before)
    assert end_dead_runs(book, home, [IN_PROCESS]) == []
    assert book.get_run_by_id(run_id).status == dg.DagsterRunStatus.STARTED
    kill(process, home, run_id)
    assert end_dead_runs(book, home, [IN_PROCESS]) == [run_id]
    run = book.get_run_by_id(run_id)
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert run.tags[KILLED_TAG] == "true"
    assert end_dead_runs(book, home, [IN_PROCESS]) == []


def test_a_killed_run_that_was_being_cancelled_is_cancelled(start, book, tmp_path):
    process, run_id = start()
    book.report_run_canceling(book.get_run_by_id(run_id))
    kill(process, tmp_path / "home", run_id)
    assert end_dead_runs(book, tmp_path / "home", [IN_PROCESS]) == [run_id]
    assert book.get_run_by_id(run_id).status == dg.DagsterRunStatus.CANCELED


def test_runs_of_which_nothing_is_certain_are_left_alone(start, book, tmp_path):
    """Another executor holds the lock in one process after another; another home's locks are not here."""
    process, run_id = start()
    kill(process, tmp_path / "home", run_id)
    assert end_dead_runs(book, tmp_path / "home", [job(dg.multiprocess_executor)]) == []
    assert end_dead_runs(book, tmp_path / "home", []) == []
    assert end_dead_runs(book, tmp_path / "other home", [IN_PROCESS]) == []


def test_the_lock_is_kept_until_the_book_says_that_the_run_has_ended(tmp_path, instance):
    """Dagster tears resources down before it writes the end: released then, a run that succeeds would look dead."""
    first, second = (instance.create_run_for_job(IN_PROCESS) for _ in range(2))
    hold_run(tmp_path, first.run_id, instance)
    hold_run(tmp_path, second.run_id, instance)
    assert all(is_held(runs_dir(tmp_path) / f"{run.run_id}.lock") for run in (first, second))
    instance.report_run_canceled(first)
    hold_run(tmp_path, second.run_id, instance)
    assert not is_held(runs_dir(tmp_path) / f"{first.run_id}.lock")
    assert is_held(runs_dir(tmp_path) / f"{second.run_id}.lock")
    assert os.listdir(runs_dir(tmp_path)) != []
