"""Trainings in processes of their own that kill themselves at a given step."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training import callback
from phi3_assets_tests.steps import alone

SEVERAL_EPOCHS = {"lora_dropout": 0.1, "num_train_epochs": 4.0, "per_device_train_batch_size": 4, "logging_steps": 4}


def train(
    inputs: dict[str, Path],
    root: Path,
    kill_at: int = -1,
    number: int = 0,
    recipe: str = "tiny-test",
    threads: int = 1,
    **overrides: Any,
) -> int:
    """Train in a process of its own; its exit code. `number` is the signal it sends itself, 0: it just ends."""
    fields = {**(SEVERAL_EPOCHS if recipe == "tiny-test" else {}), **overrides}
    return alone.run(__name__, root, *arguments(inputs, root, kill_at, number, recipe, fields), threads=threads)


def arguments(
    inputs: dict[str, Path], root: Path, kill_at: int, number: int, recipe: str, fields: dict[str, Any]
) -> list[object]:
    """The command line of `main`."""
    return [root, inputs["base_model"], inputs["formatted_corpus"], kill_at, number, recipe, json.dumps(fields)]


def main(root: Path, base: Path, corpus: Path, at: int, number: int, recipe: str, fields: str) -> None:
    """In the process: the step, which is killed while it tells of step `at`."""
    if number in (0, signal.SIGKILL):
        callback.CHECKPOINT_S = 0.0

    def progress(**numbers: float) -> None:
        if numbers["step"] == at and "eval_loss" not in numbers:
            os.kill(os.getpid(), number) if number else os._exit(9)

    inputs = {"base_model": base, "formatted_corpus": corpus}
    alone.make(LORA_ADAPTER, load_recipe(recipe, json.loads(fields)), inputs, root, progress=progress)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]), *sys.argv[6:])
