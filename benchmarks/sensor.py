"""A tick of the sensor for new data over many files that have not changed, and how many files it reads when one has.

    python -m benchmarks sensor

The sensor itself, as the daemon calls it, on a real Dagster instance and a real folder; files are 1,000 to a folder.
Bars are seconds, because a tick has a minute of them, however fast the machine is.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BARS_S = {10_000: 0.3, 100_000: 2.0}
"""Longest tick by number of files, in seconds."""


def run(args: list[str]) -> dict[str, Any]:
    """Seconds of a tick over their bar, the worst of them; one changed file among them all reads one file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sensor")
    parser.add_argument("--ticks", type=int, default=7)
    ticks = parser.parse_args(args).ticks
    opened = hear_opened()
    ratios, rows, reads = [], [], []
    for files, bar_s in BARS_S.items():
        with tempfile.TemporaryDirectory() as folder:
            tick_s, read = measure(Path(folder), files, ticks, opened)
        ratios.append(tick_s / bar_s)
        reads.append(read)
        rows.append(f"{files:>9,}{tick_s:>18.2f}{bar_s:>10.1f}{read:>30}")
    print(f"{'files':>9}{'a tick, s':>18}{'at most':>10}{'read when one has changed':>30}")
    print("\n".join(rows), "\n")
    ok = max(ratios) <= 1 and set(reads) == {1}
    return {"name": "sensor", "ratio": round(max(ratios), 3), "bar": 1.0, "read": reads, "ok": ok}


def hear_opened() -> list[str]:
    """Paths that this process opens, from now on."""
    opened: list[str] = []

    def hear(event: str, arguments: Any) -> None:
        if event == "open" and isinstance(arguments[0], str | os.PathLike):
            opened.append(os.fspath(arguments[0]))

    sys.addaudithook(hear)
    return opened


def measure(folder: Path, files: int, ticks: int, opened: list[str]) -> tuple[float, int]:
    """Median seconds of a tick over files that have not changed, and the files read after one has."""
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    import dagster as dg

    from phi3_assets.automation import sensors
    from phi3_assets.resources.local_store import LocalArtifactStore
    from phi3_assets.resources.recipe import RecipeResource

    home = folder / "home"
    datasets = home / "datasets"
    for number in range(files):
        path = datasets / f"{number // 1000:03d}" / f"{number}.csv"
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_text(f"Question,Best Answer\nWhat does code {number} mean?,Code {number} means ok.\n")
    resources = {"recipe": RecipeResource(), "store": LocalArtifactStore(home=str(home))}
    cursor: str | None = None
    with dg.instance_for_test(temp_dir=str(folder)) as instance:

        def tick() -> tuple[float, bool]:
            nonlocal cursor
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
            start = time.perf_counter()
            result = sensors.new_data(context)
            seconds = time.perf_counter() - start
            assert isinstance(result, dg.SensorResult)
            cursor = result.cursor
            return seconds, bool(result.run_requests)

        def tick_until_started() -> None:
            while not tick()[1]:
                time.sleep(1)

        tick_until_started()
        seconds = statistics.median(tick()[0] for _ in range(ticks))
        (datasets / "000" / "7.csv").write_text("Question,Best Answer\nWhat does code 7 mean?,Something else.\n")
        opened.clear()
        tick_until_started()
        return seconds, sum(path.startswith(f"{datasets}/") for path in opened)
