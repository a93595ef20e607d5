"""Each data version is retrained exactly once; each test tells what went wrong, or would."""

import json
import os
import shutil
import sys
import time

import dagster as dg
import pytest

from phi3_assets.automation import sensors
from phi3_assets.automation.runs import ATTEMPT_TAG
from phi3_assets.automation.sensors import runs_in_order
from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import digest_of, fingerprint
from phi3_assets.data.watched import folder
from phi3_assets.definitions import build_defs
from phi3_assets.ops import observing
from phi3_assets.ops.run_tags import DATA_VERSION_TAG, PRODUCT_TAG
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.runs import KILLED_TAG, runs_dir
from phi3_assets_tests.automation.desk import Desk, touch


@pytest.fixture
def make_desk(home, monkeypatch):
    desks = []

    def make(**recipe):
        (home / "datasets" / "codes.csv").unlink(missing_ok=True)
        desks.append(Desk(home, monkeypatch, **recipe))
        desks[-1].put("a.csv", "q,a")
        return desks[-1]

    yield make
    for desk in desks:
        desk.instance.dispose()


@pytest.fixture
def desk(make_desk):
    """A folder with one file that was retrained."""
    desk = make_desk()
    assert [desk.tick(), desk.tick(), desk.tick()] == [0, 1, 0]
    desk.asked.clear()
    return desk


def retrained_once(desk, why=""):
    """Exactly one run comes of it, however often the sensor looks, and whatever is lost afterwards."""
    assert desk.ticks() == 1, desk.reason
    desk.restart()
    desk.forget("cursor")
    assert desk.ticks() == 0, desk.reason
    desk.forget("memory")
    assert desk.ticks() == 0, desk.reason
    assert why in desk.asked[-1]["phi3/why"]
    digest = digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))
    assert digest.startswith(desk.asked[-1][DATA_VERSION_TAG]), "it is the data version that raw_dataset reads"
    return True


def test_first_data(make_desk):
    desk = make_desk()
    assert desk.tick() == 0
    assert desk.reason == "a.csv may still be being written: it is read once it looks the same for 10 s."
    assert retrained_once(desk, "1 files, the first")
    assert "1 files, none changed since data version" in desk.reason


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda d: d.put("b.csv", "r,b"), ": new: b.csv."),
        (lambda d: d.put("a.csv", "q,A"), ": changed: a.csv."),
        (lambda d: (d.put("b.csv", "r,b"), (d.files / "a.csv").unlink()), ": new: b.csv; gone: a.csv."),
        (lambda d: (d.files / "a.csv").rename(d.files / "c.csv"), ": renamed: a.csv to c.csv."),
        (lambda d: d.put("sub/b.csv", "r,b"), ": new: sub/b.csv."),
    ],
    ids=["new", "changed", "gone", "renamed", "subfolder"],
)
def test_every_change_of_content(desk, change, why):
    """What is new was called "changed", and so was what had gone."""
    change(desk)
    assert retrained_once(desk, why)


def test_a_file_with_an_old_date(desk):
    """A sensor that keeps the newest date it saw never sees a file that was copied with its date (teamster#4993)."""
    desk.put("old.csv", "r,b")
    touch(desk.files / "old.csv")
    assert retrained_once(desk, "new: old.csv")


def test_other_bytes_of_one_length_behind_the_same_date(desk):
    """Rsync and cp -p put the source's date on the copy: size and mtime are as before, the content is not."""
    before = (desk.files / "a.csv").stat()
    desk.put("a.csv", "q,b")
    os.utime(desk.files / "a.csv", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert retrained_once(desk, "changed: a.csv")


def test_touched(desk):
    """A backup that touched each file retrained the model every night."""
    touch(desk.files / "a.csv")
    assert desk.ticks() == 0
    assert "none changed" in desk.reason


def test_rewritten_with_the_same_bytes(desk):
    """An export that writes the same file anew each hour is no news."""
    new = desk.files / ".a.csv.new"
    shutil.copyfile(desk.files / "a.csv", new)
    new.replace(desk.files / "a.csv")
    assert desk.ticks() == 0


def test_half_written(desk):
    """A large file that grew for minutes was trained on as far as it had come."""
    for size in range(1, 5):
        desk.put("big.csv", "r,b\n" * size)
        assert desk.tick() == 0
        assert desk.reason.startswith("big.csv may still be being written")
    assert retrained_once(desk, "new: big.csv")


@pytest.mark.parametrize("jump_s", [400 * 86400.0, -400 * 86400.0], ids=["forward", "back"])
def test_the_clock_jumps_while_a_file_is_written(desk, jump_s):
    """After a jump forward every file looked as if it had been at rest for a year; after one back, as new for ever."""
    desk.put("big.csv", "r,b")
    assert desk.tick() == 0
    desk.put("big.csv", "r,b\nr,c")
    assert desk.tick(after_s=jump_s) == 0
    desk.put("big.csv", "r,b\nr,c\nr,d")
    assert retrained_once(desk, "new: big.csv")


def test_a_date_in_the_future_is_not_waited_for(desk):
    """A file from a machine whose clock was a day ahead was "being written" until the next day."""
    desk.put("b.csv", "r,b")
    os.utime(desk.files / "b.csv", (time.time() + 86400, time.time() + 86400))
    assert retrained_once(desk, "new: b.csv")


def test_removed_while_it_was_waited_for(desk):
    """The name of a file that was gone again stood in the reason for ever."""
    desk.put("b.csv", "r,b")
    desk.tick()
    (desk.files / "b.csv").unlink()
    assert desk.ticks() == 0
    assert "1 files, none changed" in desk.reason


@pytest.mark.parametrize("lost", [["cursor"], ["memory"], ["cursor", "memory"], []], ids="+".join)
def test_what_is_lost_between_two_ticks(desk, lost):
    """A cursor that was reset, a work folder that was cleared, a daemon that was started anew: each cost a retrain."""
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 1
    desk.restart()
    desk.forget(*lost)
    assert desk.ticks() == 0
    desk.put("c.csv", "s,c")
    assert desk.tick() == 0
    desk.restart()
    desk.forget(*lost)
    assert retrained_once(desk)


def test_killed_between_looking_and_asking(desk):
    """What the sensor had noted for itself was ahead of what Dagster had written down: the retrain was lost."""
    desk.put("b.csv", "r,b")
    assert desk.tick() == 0
    desk.skew_s += 30
    assert len(desk.evaluate().run_requests) == 1  # and the daemon dies before it writes that down
    assert retrained_once(desk)


@pytest.mark.parametrize("text", ["", "not json", "[1]", "{}", '{"digest": "a", "seen": {}, "pending": {}}'])
def test_a_cursor_that_cannot_be_read(desk, text):
    """The cursor of an earlier version listed all files; it is taken for a lost one."""
    desk.cursor = text
    assert desk.ticks() == 0
    desk.put("b.csv", "r,b")
    desk.cursor = text
    assert retrained_once(desk)


def test_memory_that_was_damaged(desk):
    """A file of the work folder that was cut short must not end every tick."""
    for path in (desk.home / "work" / "watched").rglob("*.json"):
        path.write_text('{"format": 1, "files": {"a.csv": [1]}}')
    assert desk.ticks() == 0
    desk.put("b.csv", "r,b")
    assert retrained_once(desk)


def test_data_that_returns_to_an_earlier_version(desk):
    """A run_key made of content is remembered for ever: the way back was never trained (PostHog#46932)."""
    first = desk.version
    desk.put("a.csv", "q,A")
    assert desk.ticks() == 1
    desk.put("a.csv", "q,a")
    assert retrained_once(desk, "changed: a.csv")
    assert desk.version == first


def test_a_run_by_hand_is_the_run(desk):
    """Somebody dropped a file and pressed Materialise; the sensor trained it a second time."""
    desk.put("b.csv", "r,b")
    desk.by_hand(digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))[:16])
    assert desk.ticks() == 0
    desk.forget("cursor")
    assert desk.ticks() == 0
    desk.put("c.csv", "s,c")
    assert retrained_once(desk, ": new: c.csv.")


def test_a_run_by_hand_that_has_not_read_yet_is_waited_for(desk):
    """Both were started within a minute, and both trained."""
    run = desk.by_hand(goes_on=True)
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 0
    assert f"run {run[:8]} is about to read the data" in desk.reason
    version = digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))[:16]
    desk.instance.add_run_tags(
        run, {PRODUCT_TAG: "operations-desk", "phi3/recipe": "smol-cpu", DATA_VERSION_TAG: version}
    )
    assert desk.ticks() == 0
    assert desk.reason.endswith(f"run {run[:8]} is at it.")


def test_a_run_by_hand_that_came_to_nothing_is_none(desk):
    """Whoever pressed Materialise thought better of it; the new data was never trained on."""
    desk.put("b.csv", "r,b")
    version = digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))[:16]
    run = desk.by_hand(version, goes_on=True)
    assert desk.ticks() == 0
    assert desk.reason.endswith(f"run {run[:8]} is at it.")
    desk.instance.report_run_canceled(desk.instance.get_run_by_id(run))
    assert retrained_once(desk)


@pytest.mark.parametrize("recipe", ["smol-cpu, lora_r=16", "tiny-test"])
def test_a_run_with_another_recipe_is_none(desk, recipe):
    """A trial with another rank by hand is no retrain."""
    desk.put("b.csv", "r,b")
    desk.by_hand(digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))[:16], recipe)
    assert retrained_once(desk)


def test_data_that_changed_before_the_run_read_it(desk):
    """A run that had waited in the queue read newer data than it was asked for; that data was trained a second time."""
    desk.put("b.csv", "r,b")
    desk.tick()
    assert desk.tick(goes_on=True) == 1
    desk.put("b.csv", "r,B")
    run = desk.instance.get_runs(limit=1)[0]
    version = digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))[:16]
    desk.instance.add_run_tags(run.run_id, {DATA_VERSION_TAG: version})
    assert desk.ticks() == 0


def test_a_run_in_flight_is_not_started_twice(desk):
    """Data went to another version and back while its first run was in the midst of training."""
    desk.put("b.csv", "r,b")
    desk.tick()
    assert desk.tick(goes_on=True) == 1
    (desk.files / "b.csv").unlink()
    assert desk.ticks() == 1
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 0
    assert "is at it" in desk.reason


def test_a_failed_listing_is_not_an_empty_folder(desk):
    """The share was away for a minute: "no files" started a run, and their return another."""
    desk.files.rename(desk.home / "away")
    with pytest.raises(UserError, match="cannot be listed: it is missing"):
        desk.tick()
    (desk.home / "away").rename(desk.files)
    assert desk.ticks() == 0
    os.mkfifo(desk.files / "pipe.csv")
    with pytest.raises(UserError, match=r"pipe.csv is a pipe"):
        desk.tick()
    (desk.files / "pipe.csv").unlink()
    assert desk.ticks() == 0


def test_an_empty_folder(desk):
    """Files that a program has not finished are none, and without any there is nothing to train on."""
    (desk.files / "a.csv").rename(desk.files / ".a.csv.part")
    assert desk.ticks() == 0
    assert desk.reason == "The dataset folder holds no data file yet."
    (desk.files / ".a.csv.part").rename(desk.files / "a.csv")
    assert desk.ticks() == 0


def test_another_product(desk):
    """PHI3_RECIPE named another product with the same folder: its models were never trained."""
    desk.recipe = {"product": "other-desk"}
    assert desk.ticks() == 1
    desk.recipe = {}
    desk.forget("cursor")
    assert desk.ticks() == 0


def opened_below(folder):
    """The files below a folder that are opened from now on, each time they are."""
    opened = []

    def hear(event, arguments):
        if event == "open" and str(arguments[0]).startswith(f"{folder}/"):
            opened.append(str(arguments[0]))

    sys.addaudithook(hear)
    return opened


def test_what_is_unchanged_is_not_read_again(desk):
    """A tick hashed the whole folder, and took longer than the minute it has."""
    for number in range(200):
        desk.put(f"{number}.csv", f"q{number},a")
    opened = opened_below(desk.files)
    assert desk.ticks() == 1
    assert len(opened) == 200
    opened.clear()
    desk.put("7.csv", "q7,b")
    opened.clear()  # what `put` opened
    assert desk.ticks() == 1
    assert opened == [str(desk.files / "7.csv")]
    touch(desk.files / "8.csv")
    opened.clear()
    assert desk.ticks() == 0
    assert opened == [str(desk.files / "8.csv")]


def test_more_than_can_be_read_in_a_tick(desk, monkeypatch):
    """The first tick over a large folder timed out, and so did each one after it: nothing was ever trained."""
    monkeypatch.setattr(sensors, "READING_S", 0.0)
    monkeypatch.setattr(folder, "_CHUNK_BYTES", 100)
    for name in ("b.csv", "c.csv"):
        desk.put(name, "r,b\n" * 100)
    said = []
    for _ in range(20):
        if desk.tick():
            break
        said.append(desk.reason)
    assert "2 of 3 files are not read yet" in said[1]
    assert "1 of 3 files are not read yet" in said[-1]
    assert len(said) > 6
    assert desk.ticks() == 0
    assert len(desk.asked) == 1


def test_a_file_that_is_read_over_several_ticks_changes(desk, monkeypatch):
    """The digest was made of the beginning of one file and the end of another."""
    monkeypatch.setattr(sensors, "READING_S", 0.0)
    monkeypatch.setattr(folder, "_CHUNK_BYTES", 1000)
    desk.put("b.csv", "r,b\n" * 1000)
    for _ in range(3):
        assert desk.tick() == 0
    desk.put("b.csv", "r,c\n" * 1000)
    assert sum(desk.tick() for _ in range(12)) == 1
    digest = digest_of(fingerprint(desk.files, "Dataset folder", "datasets"))
    assert digest.startswith(desk.version)


def test_rows_are_waited_for(make_desk):
    """Each corrected typo was a training of an hour. What is held back is said, not lost, and starts when allowed."""
    desk = make_desk(retrain_min_new_rows=5)
    assert desk.ticks() == 1
    desk.put("b.csv", "r,b\nr,c\nr,d")
    assert desk.ticks() == 0
    assert "is held back: 3 rows came or went (new: b.csv), and retrain_min_new_rows is 5." in desk.reason
    desk.restart()
    desk.put("a.csv", "q,A")
    assert desk.ticks() == 0
    assert "is held back: 4 rows came or went (new: b.csv; changed: a.csv)" in desk.reason
    (desk.files / "c.jsonl").write_text('{"Question": "s", "Best Answer": "d"}\n')
    assert retrained_once(desk, "new: b.csv, c.jsonl; changed: a.csv")


def test_what_is_held_back_shows_as_new(make_desk):
    """Data that waits for a quiet hour was to be seen nowhere in the lineage."""
    desk = make_desk(retrain_min_new_rows=1000)
    assert desk.ticks() == 1
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 0
    seen = desk.instance.fetch_observations(dg.AssetKey("datasets"), limit=10).records
    versions = [record.asset_observation.tags["dagster/data_version"] for record in seen]
    assert versions == [json.loads(desk.cursor)["observed"], desk.version]


def test_rows_that_nobody_remembers_hold_nothing_back(make_desk):
    """With the memory of the last version lost, nobody can tell how many rows are new: rather a run than none."""
    desk = make_desk(retrain_min_new_rows=1000)
    assert desk.ticks() == 1
    desk.forget("memory")
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 1


def test_quiet_is_waited_for(make_desk):
    """Ten files that came over an hour were ten trainings."""
    desk = make_desk(retrain_quiet_minutes=10)
    assert desk.tick() + desk.tick() == 0
    assert "is held back: the data changed 0 min ago. It starts in 10 min if nothing changes" in desk.reason
    assert desk.tick(after_s=500) == 0
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 0
    assert desk.tick(after_s=400) == 0
    desk.restart()
    desk.forget("cursor")
    assert desk.tick(after_s=200) == 1
    assert desk.ticks() == 0


def test_the_days_budget_is_kept(make_desk):
    """A folder that changes each hour must not cost a training each hour."""
    desk = make_desk(retrain_runs_a_day=2)
    assert desk.ticks() == 1
    desk.put("b.csv", "r,b")
    assert desk.ticks() == 1
    desk.put("c.csv", "s,c")
    assert desk.ticks() == 0
    assert "is held back: 2 runs were started within a day, and retrain_runs_a_day is 2. It starts in" in desk.reason
    desk.restart()
    desk.forget("cursor", "memory")
    assert desk.ticks() == 0
    assert desk.tick(after_s=86400) == 1
    assert desk.ticks() == 0


def test_comes_back_to_what_failed_for_a_reason_that_may_pass(make_desk):
    """The hub was away for a minute at night, and the new data was never trained on."""
    away = {"failing": "the hub was away"}
    desk = make_desk()
    assert desk.tick() + desk.tick(**away) == 1
    assert desk.tick(after_s=200) == 0
    assert desk.reason.endswith("failed for a reason that may pass; it is tried again in 2 min.")
    desk.restart()
    desk.forget("cursor")
    assert desk.tick(after_s=100, **away) == 1
    assert desk.tick(after_s=1800, **away) == 1
    assert desk.tick(after_s=7200, **away) == 1
    assert [tags[ATTEMPT_TAG] for tags in desk.asked] == ["1", "2", "3", "4"]
    assert desk.tick(after_s=1_000_000) == 0
    assert "failed 4 times; it is not tried again by itself" in desk.reason


@pytest.mark.parametrize("failing", ["no such column", "a check failed", "a defect"])
def test_comes_back_to_nothing_else(make_desk, failing):
    """A run that fails for the user's own fault would fail again."""
    desk = make_desk()
    assert desk.tick() + desk.tick(failing=failing) == 1
    assert desk.tick(after_s=1_000_000) == 0
    assert "none changed" in desk.reason


def test_a_killed_run_is_come_back_to_and_a_canceled_one_is_not(make_desk):
    """A run that was killed says nothing of why; `runs_in_order` says it for it."""
    desk = make_desk()
    assert desk.tick() + desk.tick(goes_on=True) == 1
    (run,) = desk.instance.get_runs()
    assert desk.tick(after_s=1_000_000) == 0
    assert desk.reason.endswith("is at it.")
    desk.instance.add_run_tags(run.run_id, {KILLED_TAG: "true"})
    desk.instance.report_run_failed(run)
    assert desk.tick(after_s=301, goes_on=True) == 1
    desk.instance.report_run_canceled(desk.instance.get_runs(limit=1)[0])
    assert desk.tick(after_s=1_000_000) == 0


def test_a_remote_folder_is_only_listed_in_a_tick(make_desk, monkeypatch):
    """A tick has 60 seconds; it fetched the whole container, in place, under the feet of a running step."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/ticks/a.csv", b"Question,Best Answer\nq,a\n")
    memory.pipe("/ticks/notes.md", b"no data")
    monkeypatch.setattr(memory, "get_file", None)
    desk = make_desk(dataset_path="memory://ticks")
    try:
        assert [desk.tick() for _ in range(4)] == [0, 1, 0, 0]
        memory.pipe("/ticks/a.csv", b"Question,Best Answer\nq,b\n")
        assert [desk.tick() for _ in range(4)] == [0, 1, 0, 0]
        assert "changed: a.csv" in desk.asked[-1]["phi3/why"]
        desk.restart()
        desk.forget("cursor", "memory")
        assert desk.ticks() == 0
        memory.rm("/ticks", recursive=True)
        with pytest.raises(UserError, match="does not exist or holds no data file"):
            desk.tick()
    finally:
        memory.store.clear()


def test_rows_of_a_remote_folder_are_not_counted(make_desk):
    """They would have to be fetched in a tick."""
    desk = make_desk(dataset_path="memory://ticks", retrain_min_new_rows=5)
    with pytest.raises(UserError, match="rows are counted in a local folder alone"):
        desk.tick()


def test_the_whole_graph_says_what_it_read(copied_home, monkeypatch):
    """`phi3 run` made everything an hour ago; turned on, the sensor made it again."""
    monkeypatch.setattr(observing, "SETTLE_S", 0.0)
    monkeypatch.setenv("PHI3_RECIPE", "tiny-test")
    with dg.DagsterInstance.from_config(str(copied_home / ".dagster")) as instance:
        (run,) = instance.get_runs()
        digest = digest_of(fingerprint(copied_home / "datasets", "Dataset folder", "datasets"))
        own = {name: value for name, value in run.tags.items() if name.startswith("phi3/")}
        assert own == {
            "phi3/product": "operations-desk",
            "phi3/recipe": "tiny-test",
            "phi3/data_version": digest[:16],
            "phi3/started_by": "phi3 run",
        }
        resources = {"recipe": RecipeResource(), "store": LocalArtifactStore(home=str(copied_home))}
        result = sensors.new_data(dg.build_sensor_context(instance=instance, resources=resources))
    assert not result.run_requests
    assert "1 files, none changed since data version" in result.skip_reason.skip_message


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
