"""Old runs leave nothing needless behind, and no asset loses its history or its present data version."""

import os
import time

import dagster as dg
import pytest

from phi3_assets.core.ledger import run_key
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.retention import RETIRED_TAG, retire_runs
from phi3_assets.resources.runs import hold_run, runs_dir

KEY = dg.AssetKey("thing")


@pytest.fixture
def book(tmp_path):
    (tmp_path / ".dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / ".dagster")) as instance:
        yield instance


def run(book, home, *, reused=True, fails=False):
    """A run as this graph's are: it materialises an asset, says whether that stood already, and leaves pointers."""

    @dg.asset
    def thing():
        if fails:
            raise dg.Failure("the user's reason")
        print("on the console")
        return dg.MaterializeResult(metadata={"reused": reused}, data_version=dg.DataVersion("d"))

    run_id = dg.materialize([thing], instance=book, raise_on_error=False).run_id
    ledger_of(home).write(run_key(f"{run_id}.json"), b"{}", None)
    return run_id


def ledger_of(home):
    return LocalLedger(home / "ledger")


def files_of(root, run_id):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and run_id in str(path))


def test_what_is_old_goes_and_what_an_asset_shows_stays(book, tmp_path):
    """1.4 MB and 20 files for each run that found everything standing, kept for ever."""
    made = run(book, tmp_path, reused=False)
    found = [run(book, tmp_path) for _ in range(3)]
    failed = run(book, tmp_path, fails=True)
    assert all(files_of(tmp_path, run_id) for run_id in (made, *found, failed))
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=0, keep_runs=0) == 4

    assert [path for run_id in (*found[:2], failed) for path in files_of(tmp_path, run_id)] == []
    assert [book.get_run_by_id(run_id) for run_id in (*found[:2], failed)] == [None] * 3
    # The run that made it stays in the book, without the console's output and its pointers.
    assert files_of(tmp_path, made) == [f".dagster/history/runs/{made}.db"]
    assert book.get_run_by_id(made).tags[RETIRED_TAG] == "true"
    # So does the newest of the asset.
    assert book.get_latest_materialization_event(KEY).run_id == found[2]
    history = [record.run_id for record in book.fetch_materializations(KEY, limit=9).records]
    assert history == [found[2], made]
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=0, keep_runs=0) == 0


def test_nothing_young_is_touched(book, tmp_path):
    runs = [run(book, tmp_path) for _ in range(2)]
    before = [files_of(tmp_path, run_id) for run_id in runs]
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=1, keep_runs=2) == 0
    assert [files_of(tmp_path, run_id) for run_id in runs] == before
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=1, keep_runs=1) == 1
    assert files_of(tmp_path, runs[0]) == []
    assert files_of(tmp_path, runs[1]) == before[1]


def test_a_run_that_goes_on_is_never_touched(book, tmp_path):
    @dg.job
    def work():
        pass

    going = book.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)
    hold_run(tmp_path, going.run_id)
    long_ago = time.time() - 365 * 86400
    os.utime(runs_dir(tmp_path) / f"{going.run_id}.lock", (long_ago, long_ago))
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=0, keep_runs=0) == 0
    assert book.get_run_by_id(going.run_id).status == dg.DagsterRunStatus.STARTED
    assert (runs_dir(tmp_path) / f"{going.run_id}.lock").exists()


def test_a_tick_retires_no_more_than_it_has_time_for(book, tmp_path):
    for _ in range(4):
        run(book, tmp_path)
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=0, keep_runs=1, at_most=2) == 2
    assert retire_runs(book, tmp_path, ledger_of(tmp_path), keep_days=0, keep_runs=1, at_most=2) == 1
