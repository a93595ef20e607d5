"""The sensor starts one run for each data version, and says why it does not."""

import json
import os
import time

import dagster as dg
import pytest

from phi3_assets.automation.sensors import new_data
from phi3_assets.automation.watch import Cursor, decide
from phi3_assets.core.errors import UserError
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.recipe import RecipeResource
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


def test_failed_listing_is_not_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match="cannot be listed"):
        decide(tmp_path / "none", Cursor(), NOW, SETTLE_S)


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
