"""New data shows in the lineage, and the graph follows it by itself; what a blocking check refused holds it back."""

import datetime as dt

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from phi3_assets.automation import policies
from phi3_assets.automation.jobs import nightly
from phi3_assets.definitions import build_defs
from phi3_assets.ops import observing
from phi3_assets.ops.observing import observation
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.steps import STEPS
from phi3_assets_tests.conftest import write_rows

RAW, DATASETS = dg.AssetKey("raw_dataset"), dg.AssetKey("datasets")


@pytest.fixture
def definitions(home, shared_execution, monkeypatch):
    monkeypatch.setattr(observing, "SETTLE_S", 0.0)
    return build_defs(recipe=RecipeResource(recipe="tiny-test"), store=LocalArtifactStore(home=str(home)))


def make(definitions, instance, key):
    job = definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=instance, asset_selection=[key]).success


def status(definitions, instance):
    graph = definitions.resolve_asset_graph()
    return CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance)).get_status(RAW)


def test_new_data_shows_as_unsynced(definitions, instance, home):
    """Whether the models know the newest files was not to be seen anywhere."""
    make(definitions, instance, RAW)
    assert status(definitions, instance) == StaleStatus.FRESH, "though nobody observed the files before"
    make(definitions, instance, DATASETS)
    assert status(definitions, instance) == StaleStatus.FRESH
    write_rows(home / "datasets" / "more.csv", 50)
    make(definitions, instance, DATASETS)
    assert status(definitions, instance) == StaleStatus.STALE
    make(definitions, instance, RAW)
    assert status(definitions, instance) == StaleStatus.FRESH


def test_data_that_is_written_all_the_time_is_no_version(definitions, instance, home, monkeypatch):
    """An observation of a half-written file would start the graph on it."""
    monkeypatch.setattr(observing, "SETTLE_S", 0.01)
    monkeypatch.setattr(observing, "_TRIES", 3)
    real, number = observing.watch, iter(range(100))

    def watch(*arguments):
        write_rows(home / "datasets" / "codes.csv", next(number))
        return real(*arguments)

    monkeypatch.setattr(observing, "watch", watch)
    job = definitions.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(instance=instance, asset_selection=[DATASETS], raise_on_error=False)
    assert not done.success
    (failure,) = done.get_step_failure_events()
    assert "codes.csv is being written all the time" in failure.step_failure_data.user_failure_data.description


class Followed:
    """The graph under its automation sensor: what is requested at each tick, with events for what would be made."""

    def __init__(self, definitions, instance):
        self.definitions, self.instance, self.cursor = definitions, instance, None
        self.checks = [spec for check in definitions.asset_checks for spec in check.check_specs]

    def requested(self):
        result = dg.evaluate_automation_conditions(self.definitions, self.instance, cursor=self.cursor)
        self.cursor = result.cursor
        return {name for name in [*STEPS, "champion"] if result.get_num_requested(dg.AssetKey(name))}

    def made(self, name, failing=""):
        self.instance.report_runless_asset_event(dg.AssetMaterialization(name))
        for spec in self.checks:
            if spec.asset_key.to_user_string() == name:
                self.instance.report_runless_asset_event(
                    dg.AssetCheckEvaluation(
                        asset_key=spec.asset_key,
                        check_name=spec.name,
                        passed=spec.name != failing,
                        severity=dg.AssetCheckSeverity.ERROR,
                    )
                )


@pytest.fixture
def followed(definitions, instance):
    followed = Followed(definitions, instance)
    instance.report_runless_asset_event(observation("1"))
    for name in [*STEPS, "champion"]:
        followed.made(name)
    followed.requested()
    assert followed.requested() == set()
    return followed


def test_the_graph_follows_new_data(followed, instance):
    """All that is made of the data, and nothing else, in one tick and so in one run."""
    instance.report_runless_asset_event(observation("2"))
    assert followed.requested() == {*STEPS, "champion"} - {"base_model"}
    assert followed.requested() == set()


def test_the_same_data_again_starts_nothing(followed, instance):
    """The files are observed every hour."""
    instance.report_runless_asset_event(observation("1"))
    assert followed.requested() == set()


def test_a_failed_blocking_check_holds_the_graph_back(followed):
    """A check stops what follows in its own run; `eager` went on in the next tick with what it had refused."""
    followed.made("raw_dataset", failing="every_row_is_accounted_for")
    assert followed.requested() == set()
    followed.made("raw_dataset")
    assert followed.requested() == {*STEPS, "champion"} - {"base_model", "raw_dataset"}


def test_both_ways_are_off_until_somebody_turns_one_on(definitions):
    assert policies.follow_data.default_status == dg.DefaultSensorStatus.STOPPED
    assert nightly.default_status == dg.DefaultScheduleStatus.STOPPED
    names = {sensor.name for sensor in definitions.sensors}
    assert names == {"new_data", "follow_data", "runs_in_order", "failed_runs"}
    assert all(sensor.description for sensor in definitions.sensors)


def test_every_night_the_whole_graph(definitions, instance):
    """Held-back data, and a schedule that was silently off: a release nobody asked anew for a week is told of."""
    context = dg.build_schedule_context(instance=instance, scheduled_execution_time=dt.datetime(2026, 11, 28, 2))
    tick = nightly.evaluate_tick(context)
    assert len(tick.run_requests) == 1
    watched = [spec for spec in definitions.resolve_all_asset_specs() if spec.freshness_policy]
    assert [spec.key.to_user_string() for spec in watched] == ["release_bundle"]
