"""A home whose new data is watched: Dagster's instance on a disk, a clock of its own, and what the daemon does.

What the sensor asks for is entered into the instance as the daemon would, as a run with its tags.
"""

import json
import os
import shutil
import time
from pathlib import Path

import dagster as dg

from phi3_assets.automation import sensors
from phi3_assets.automation.sensors import new_data
from phi3_assets.ops.run_tags import DATA_VERSION_TAG, PRODUCT_TAG, RECIPE_TAG
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.recipe import RecipeResource

TICK_S = 30


@dg.op
def train(context):
    failing = context.run.tags.get("failing")
    if failing == "a defect":
        raise KeyError(failing)
    if failing:
        says = {} if failing == "a check failed" else {"transient": failing == "the hub was away"}
        raise dg.Failure(failing, metadata=says, allow_retries=False)


@dg.job
def retrain():
    train()


class Desk:
    """A folder, a daemon that ticks, and the runs that came of it."""

    def __init__(self, home: Path, monkeypatch, **recipe) -> None:
        self.home, self.files, self.recipe = home, home / "datasets", recipe
        self.skew_s, self.cursor, self.reason = 0.0, None, ""
        self.asked: list[dict[str, str]] = []
        real = time.time
        monkeypatch.setattr(sensors.time, "time", lambda: real() + self.skew_s)
        self.dagster_home = home / ".dagster"
        self.dagster_home.mkdir()
        (self.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        self.instance = dg.DagsterInstance.from_config(str(self.dagster_home))

    def put(self, name: str, text: str) -> None:
        path = self.files / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"Question,Best Answer\n{text}\n")

    def evaluate(self) -> dg.SensorResult:
        resources = {"recipe": RecipeResource(**self.recipe), "store": LocalArtifactStore(home=str(self.home))}
        return new_data(dg.build_sensor_context(instance=self.instance, cursor=self.cursor, resources=resources))

    def tick(self, after_s: float = TICK_S, failing: str = "", goes_on: bool = False) -> int:
        """One tick of the daemon; how many runs it started. They end at once, as `failing` says, unless one goes on."""
        self.skew_s += after_s
        result = self.evaluate()
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursor = result.cursor
        requests = result.run_requests or []
        self.reason = result.skip_reason.skip_message if result.skip_reason else requests[0].tags["phi3/why"]
        for request in requests:
            assert request.run_key is None
            self.asked.append(dict(request.tags))
            self.run({**request.tags, "dagster/sensor_name": "new_data"}, failing, goes_on)
        return len(requests)

    def run(self, tags: dict[str, str], failing: str = "", goes_on: bool = False) -> str:
        """Enter a run of the whole graph."""
        if goes_on:
            return self.instance.create_run_for_job(retrain, status=dg.DagsterRunStatus.STARTED, tags=tags).run_id
        tags = {**tags, "failing": failing} if failing else tags
        return retrain.execute_in_process(instance=self.instance, raise_on_error=False, tags=tags).run_id

    def by_hand(self, version: str = "", recipe: str = "smol-cpu", **how) -> str:
        """A run of `phi3 run`, as it says of itself once it reads the data."""
        tags = {PRODUCT_TAG: "operations-desk", RECIPE_TAG: recipe, DATA_VERSION_TAG: version}
        return self.run(tags if version else {}, **how)

    def ticks(self, number: int = 3) -> int:
        """Runs that so many ticks started."""
        return sum(self.tick() for _ in range(number))

    def restart(self) -> None:
        """Another daemon on the same DAGSTER_HOME."""
        self.instance.dispose()
        self.instance = dg.DagsterInstance.from_config(str(self.dagster_home))

    def forget(self, *what: str) -> None:
        """Lose the cursor, what ticks remember of the folder, or both."""
        if "cursor" in what:
            self.cursor = None
        if "memory" in what:
            shutil.rmtree(self.home / "work" / "watched")

    @property
    def version(self) -> str:
        return str(json.loads(self.cursor)["asked"])


def touch(path: Path) -> None:
    os.utime(path, (1, 1))
