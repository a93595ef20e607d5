"""The sensor starts one run for each data version, and says why it does not."""

import json
import os
import time

import dagster as dg
import pytest

from phi3_assets.automation.sensors import ATTEMPT_TAG, DATA_VERSION_TAG, last_run, new_data, runs_in_order
from phi3_assets.automation.watch import Cursor, LastRun, decide, try_again
from phi3_assets.core.errors import UserError
from phi3_assets.definitions import build_defs
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.runs import KILLED_TAG, runs_dir
from phi3_assets_tests.conftest import write_rows

NOW = 1_800_000_000.0
SETTLE_S = 10


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "datasets"
    path.mkdir()
    put(path, "a.csv", "a")
    return path


def put(folder, name, text, age_s=60.0):
    """Write a file that was last changed `age_s` seconds before NOW."""
    path = folder / name
    path.write_text(text)
    os.utime(path, (NOW - age_s, NOW - age_s))


def tick(folder, cursor=Cursor(), now_s=NOW):  # noqa: B008 - frozen
    """One decision; the cursor goes through its text, as it does in Dagster."""
    decision = decide(folder, cursor, now_s, SETTLE_S)
    return decision, Cursor.parse(decision.cursor.dump())


def test_new_data_once(folder):
    first, cursor = tick(folder)
    assert first.digest
    assert "a.csv changed" in first.reason
    again, _ = tick(folder, cursor)
    assert again.digest is None
    assert "1 files, none changed since data version" in again.reason


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda f: put(f, "b.csv", "b"), "b.csv"),
        (lambda f: put(f, "a.csv", "A"), "a.csv"),
        (lambda f: (put(f, "b.csv", "b"), (f / "a.csv").unlink()), "a.csv, b.csv"),
        (lambda f: (f / "a.csv").rename(f / "c.csv"), "a.csv, c.csv"),
        # A sensor that keeps the newest date it saw would never see this file.
        (lambda f: put(f, "old.csv", "x", age_s=10 * 365 * 86400), "old.csv"),
    ],
)
def test_every_change_of_content_is_one_run(folder, change, named):
    _, cursor = tick(folder)
    change(folder)
    decision, cursor = tick(folder, cursor)
    assert decision.digest
    assert f": {named} changed" in decision.reason
    assert tick(folder, cursor)[0].digest is None


def test_touching_starts_nothing(folder):
    _, cursor = tick(folder)
    put(folder, "a.csv", "a", age_s=20)
    assert tick(folder, cursor)[0].digest is None


def test_half_written_file_is_waited_for(folder):
    _, cursor = tick(folder)
    put(folder, "big.csv", "half", age_s=1)
    decision, cursor = tick(folder, cursor)
    assert decision.digest is None
    assert "big.csv was changed less than 10 s ago" in decision.reason
    put(folder, "big.csv", "half and half", age_s=1)  # grows on
    decision, cursor = tick(folder, cursor)
    assert decision.digest is None
    decision, cursor = tick(folder, cursor)  # looks as it did: at rest
    assert decision.digest
    assert "big.csv changed" in decision.reason


def test_date_in_the_future_is_not_waited_for_for_ever(folder):
    put(folder, "a.csv", "a", age_s=-86400)
    decision, cursor = tick(folder)
    assert decision.digest is None
    assert tick(folder, cursor)[0].digest


def test_data_that_returns_to_an_earlier_version_runs_again(folder):
    first, cursor = tick(folder)
    put(folder, "a.csv", "A")
    _, cursor = tick(folder, cursor)
    put(folder, "a.csv", "a")
    third, _ = tick(folder, cursor)
    assert third.digest == first.digest


@pytest.mark.parametrize("text", [None, "", "not json", "{}", '{"digest": 1, "seen": [], "pending": {}}'])
def test_lost_cursor_costs_one_run(folder, text):
    assert tick(folder, Cursor.parse(text))[0].digest


def again(folder, last, minutes=0.0):
    _, cursor = tick(folder)
    unchanged, _ = tick(folder, cursor)
    assert unchanged.at_rest
    return try_again(unchanged, last, NOW + 60 * minutes)


def test_comes_back_to_what_failed_for_a_reason_that_may_pass(folder):
    """The hub was away for a minute at night, and the new data was never trained on."""
    early = again(folder, LastRun(1, True, NOW), minutes=4)
    assert early.digest is None
    assert early.reason.endswith("failed for a reason that may pass; it is tried again in 1 min.")
    due = again(folder, LastRun(1, True, NOW), minutes=5)
    assert due.digest == due.cursor.digest
    assert due.attempt == 2
    assert again(folder, LastRun(2, True, NOW), minutes=29).digest is None
    assert again(folder, LastRun(2, True, NOW), minutes=30).attempt == 3
    assert again(folder, LastRun(3, True, NOW), minutes=119).digest is None
    assert again(folder, LastRun(3, True, NOW), minutes=120).attempt == 4
    spent = again(folder, LastRun(4, True, NOW), minutes=10_000)
    assert spent.digest is None
    assert "failed 4 times; it is not tried again by itself" in spent.reason


@pytest.mark.parametrize("last", [None, LastRun(1, False, NOW), LastRun(1, True, None), LastRun(1, False, None)])
def test_comes_back_to_nothing_else(folder, last):
    """Not to the user's own fault, nor to a run that goes on, nor to one that succeeded or was cancelled."""
    assert again(folder, last, minutes=10_000).digest is None


def test_does_not_come_back_while_data_is_changed_or_gone(folder):
    _, cursor = tick(folder)
    put(folder, "b.csv", "half", age_s=1)
    assert not tick(folder, cursor)[0].at_rest
    for name in ("a.csv", "b.csv"):
        (folder / name).unlink()
    assert not tick(folder, cursor)[0].at_rest


def test_failed_listing_is_not_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="cannot be listed"):
        decide(tmp_path / "none", Cursor(), NOW, SETTLE_S)


def test_a_remote_folder_is_only_listed_in_a_tick(home, monkeypatch, instance):
    """A tick has 60 seconds; it fetched the whole container, in place, under the feet of a running step."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/ticks/a.csv", b"Question,Best Answer\nq,a\n")
    memory.pipe("/ticks/notes.md", b"no data")
    monkeypatch.setattr(memory, "get_file", None)
    resources = {"recipe": RecipeResource(dataset_path="memory://ticks"), "store": LocalArtifactStore(home=str(home))}
    cursor, asked = None, []
    try:
        for change in (None, None, None, b"Question,Best Answer\nq,b\n", None, None):
            if change:
                memory.pipe("/ticks/a.csv", change)
            result = new_data(dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources))
            cursor = result.cursor
            asked.append(len(result.run_requests or []))
    finally:
        memory.rm("/ticks", recursive=True)
    assert asked == [0, 1, 0, 0, 1, 0], "each version once, as soon as it looks as it did at the last tick"


def test_empty_folder_and_hidden_files_wait(folder):
    (folder / "a.csv").unlink()
    put(folder, ".a.csv.part", "x")
    decision, _ = tick(folder)
    assert decision.digest is None
    assert "holds no file yet" in decision.reason


def test_ten_thousand_files_are_looked_at_in_a_second(folder):
    for number in range(10_000):
        put(folder, f"{number}.csv", "x")
    _, cursor = tick(folder)
    start = time.monotonic()
    assert tick(folder, cursor)[0].digest is None
    assert time.monotonic() - start < 5  # under one when nothing else runs; the 60 s of a tick are far


def evaluate(instance, cursor):
    resources = {"recipe": RecipeResource(), "store": LocalArtifactStore()}
    return new_data(dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources))


def test_sensor_asks_for_one_run_with_a_reason(instance, home, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(home))
    long_ago = time.time() - 3600
    os.utime(home / "datasets" / "codes.csv", (long_ago, long_ago))
    result = evaluate(instance, None)
    (request,) = result.run_requests
    assert request.run_key is None
    assert request.tags["phi3/why"].endswith("codes.csv changed.")
    again = evaluate(instance, result.cursor)
    assert not again.run_requests
    assert "none changed" in again.skip_reason.skip_message
    write_rows(home / "datasets" / "more.csv", 5)
    os.utime(home / "datasets" / "more.csv", (long_ago, long_ago))
    third = evaluate(instance, again.cursor)
    assert len(third.run_requests) == 1
    assert json.loads(third.cursor)["digest"].startswith(third.run_requests[0].tags["phi3/data_version"])


DIGEST = "d" * 64


def run_for(instance, failing=None, **tags):
    """A run of the data version that ended as `failing` says."""

    @dg.op
    def only():
        if failing is not None:
            raise failing

    @dg.job
    def work():
        only()

    tags = {DATA_VERSION_TAG: DIGEST[:12], **tags}
    return work.execute_in_process(instance=instance, raise_on_error=False, tags=tags).run_id


@pytest.mark.parametrize(
    ("failing", "transient"),
    [
        (None, False),
        (dg.Failure("the hub was away", metadata={"transient": True}), True),
        (dg.Failure("no such column", metadata={"transient": False}, allow_retries=False), False),
        (dg.Failure("a check failed"), False),
        (KeyError("a defect"), False),
    ],
)
def test_how_the_last_run_ended_is_read_from_its_events(instance, failing, transient):
    run_for(instance, failing)
    last = last_run(instance, DIGEST)
    assert last.failed_transiently is transient
    assert last.attempt == 1
    assert abs(last.ended_s - time.time()) < 60


def test_the_newest_run_counts(instance):
    assert last_run(instance, DIGEST) is None
    run_for(instance, dg.Failure("the hub was away", metadata={"transient": True}))
    run_for(instance, None, **{ATTEMPT_TAG: "2"})
    assert last_run(instance, DIGEST) == LastRun(2, False, last_run(instance, DIGEST).ended_s)


def test_a_killed_run_may_succeed_next_time_and_one_that_goes_on_is_left_alone(instance):
    @dg.job
    def work():
        pass

    tags = {DATA_VERSION_TAG: DIGEST[:12]}
    run = instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert last_run(instance, DIGEST).ended_s is None
    instance.add_run_tags(run.run_id, {KILLED_TAG: "true"})
    instance.report_run_failed(run)
    assert last_run(instance, DIGEST).failed_transiently


def test_the_sensor_asks_again_five_minutes_after_a_transient_failure(instance, home, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(home))
    long_ago = time.time() - 3600
    os.utime(home / "datasets" / "codes.csv", (long_ago, long_ago))
    first = evaluate(instance, None)
    tags = first.run_requests[0].tags
    assert tags[ATTEMPT_TAG] == "1"
    run_for(instance, dg.Failure("the hub was away", metadata={"transient": True}), **tags)
    soon = evaluate(instance, first.cursor)
    assert not soon.run_requests
    assert "tried again in 5 min" in soon.skip_reason.skip_message
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 301)
    later = evaluate(instance, soon.cursor)
    assert later.run_requests[0].tags[ATTEMPT_TAG] == "2"
    assert later.run_requests[0].tags[DATA_VERSION_TAG] == tags[DATA_VERSION_TAG]


def test_the_sensor_of_runs_ends_the_dead_and_clears_away_once_a_day(instance, home, monkeypatch):
    """It must be on by itself: nobody turns on a sensor before the machine has died."""
    definitions = build_defs()
    assert runs_in_order.default_status == dg.DefaultSensorStatus.RUNNING
    assert runs_in_order.minimum_interval_seconds == 30
    run = instance.create_run_for_job(definitions.resolve_job_def("retrain"), status=dg.DagsterRunStatus.STARTED)
    lock = runs_dir(home) / f"{run.run_id}.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()  # and nobody holds it

    def tick_of(cursor):
        context = dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            resources={"store": LocalArtifactStore(home=str(home))},
            repository_def=definitions.get_repository_def(),
        )
        return runs_in_order(context)

    first = tick_of(None)
    assert first.skip_reason.skip_message == f"Ended, for their process is gone: {run.run_id}."
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    monkeypatch.setattr("phi3_assets.automation.sensors.retire_runs", lambda *a, **k: pytest.fail("twice a day"))
    second = tick_of(first.cursor)
    assert second.skip_reason.skip_message == "All runs are in order."
