"""A training as a command job runs it, with copies of its checkpoints and the metadata service's notice; a script."""

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.worker.mirror import Mirror
from phi3_assets.worker.notice import Notice
from phi3_assets_tests.steps import alone
from phi3_assets_tests.worker.metadata_service import MetadataService

SLOW_STEP = 8


def main(root: Path, base: Path, corpus: Path, copies: Path, fields: dict[str, Any], *, heeds: bool) -> None:
    """Train; `heeds`: its step SLOW_STEP lasts until the machine's end is announced."""
    say = partial(print, file=sys.stdout, flush=True)  # Olive's passes run with sys.stdout turned away
    mirror = Mirror(root / "work", copies, say)
    mirror.restore()
    with mirror, Notice(mirror.finish, say, poll_s=0.05) as notice:

        def progress(**numbers: float) -> None:
            say("step", int(numbers["step"]))
            while heeds and numbers["step"] == SLOW_STEP and not notice.announced():
                time.sleep(0.01)

        inputs = {"base_model": base, "formatted_corpus": corpus}
        recipe = load_recipe("tiny-test", fields)
        alone.make(LORA_ADAPTER, recipe, inputs, root, log=say, progress=progress, interruption=notice)


def start(
    root: Path,
    inputs: dict[str, Path],
    copies: Path,
    service: MetadataService,
    heeds: bool = False,
    env: dict[str, str] | None = None,
    **fields: Any,
) -> alone.Started:
    """Run it in a process of its own."""
    arguments = [root, inputs["base_model"], inputs["formatted_corpus"], copies, json.dumps(fields), int(heeds)]
    return alone.start(__name__, root, *arguments, env={**service.environment, **(env or {})})


def steps_of(root: Path) -> list[int]:
    """Optimiser steps that it told, of all attempts."""
    lines = alone.log_of(root).splitlines()
    return [int(line.removeprefix("step ")) for line in lines if line.startswith("step ")]


if __name__ == "__main__":
    paths, (fields, heeds) = map(Path, sys.argv[1:5]), sys.argv[5:]
    main(*paths, json.loads(fields), heeds=heeds == "1")
