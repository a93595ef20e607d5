"""A training as a command job runs it, with copies of its checkpoints and the metadata service's notice; a script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from phi3_assets_tests.worker.metadata_service import MetadataService

SLOW_STEP = 8


def main(root: Path, base: Path, corpus: Path, copies: Path, fields: dict[str, Any], *, heeds: bool) -> None:
    """Train; `heeds`: its step SLOW_STEP lasts until the machine's end is announced."""
    from phi3_assets.core.recipe_file import load_recipe
    from phi3_assets.core.step import StepContext
    from phi3_assets.steps import LORA_ADAPTER
    from phi3_assets.worker.mirror import Mirror
    from phi3_assets.worker.notice import Notice

    signal.signal(signal.SIGINT, signal.default_int_handler)
    recipe = load_recipe("tiny-test", fields)
    for name in ("output", "work", "cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    log = (root / "log.txt").open("a", buffering=1)
    mirror = Mirror(root / "work", copies, lambda line: print(line, file=log))
    mirror.restore()
    with mirror, Notice(mirror.finish, lambda line: print(line, file=log), poll_s=0.05) as notice:

        def progress(**numbers: float) -> None:
            print("step", int(numbers["step"]), file=log)
            while heeds and numbers["step"] == SLOW_STEP and not notice.announced():
                time.sleep(0.01)

        metrics = LORA_ADAPTER.load()(
            StepContext(
                params=LORA_ADAPTER.params(recipe),
                settings=LORA_ADAPTER.settings(recipe),
                inputs={"base_model": base, "formatted_corpus": corpus},
                output=root / "output",
                work=root / "work",
                cache=root / "cache",
                log=lambda line: print(line, file=log),
                progress=progress,
                interruption=notice,
            )
        )
    (root / "metrics.json").write_text(json.dumps(metrics))


def start(
    root: Path,
    inputs: dict[str, Path],
    copies: Path,
    service: MetadataService,
    heeds: bool = False,
    env: dict[str, str] | None = None,
    **fields: Any,
) -> subprocess.Popen:
    """Run it in a process of its own."""
    arguments = [root, inputs["base_model"], inputs["formatted_corpus"], copies, json.dumps(fields), int(heeds)]
    return subprocess.Popen(
        [sys.executable, "-m", __name__, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **service.environment, **(env or {})},
    )


def steps_of(root: Path) -> list[int]:
    """Optimiser steps that it told, of all attempts."""
    lines = (root / "log.txt").read_text().splitlines() if (root / "log.txt").exists() else []
    return [int(line.removeprefix("step ")) for line in lines if line.startswith("step ")]


if __name__ == "__main__":
    paths, (fields, heeds) = map(Path, sys.argv[1:5]), sys.argv[5:]
    main(*paths, json.loads(fields), heeds=heeds == "1")
