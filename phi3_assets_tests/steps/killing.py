"""Trainings in processes of their own that kill themselves at a given step."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepContext
from phi3_assets.models.environment import SETTINGS
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training import callback
from phi3_assets_tests.shared_server import shared_server

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
    fields = json.dumps({**(SEVERAL_EPOCHS if recipe == "tiny-test" else {}), **overrides})
    arguments = [root, inputs["base_model"], inputs["formatted_corpus"], kill_at, number, recipe, fields]
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    env = {**os.environ, **SETTINGS, "OMP_NUM_THREADS": str(threads)}
    root.mkdir(exist_ok=True)
    with (root / "log").open("ab") as log, open(os.devnull) as nobody:  # it need not die with us
        code = shared_server(threads).start(command, env, log.fileno(), nobody.fileno()).wait()
    sys.stdout.write((root / "log").read_text())  # pytest shows it if the test fails
    return code


def main(root: Path, base: Path, corpus: Path, at: int, number: int, recipe_name: str, fields: str) -> None:
    """In the process: the step, which is killed while it tells of step `at`."""
    # As the worker does: the tests may run under nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    recipe = load_recipe(recipe_name, json.loads(fields))
    if number in (0, signal.SIGKILL):
        callback.CHECKPOINT_S = 0.0

    def progress(**numbers: float) -> None:
        if numbers["step"] == at and "eval_loss" not in numbers:
            os.kill(os.getpid(), number) if number else os._exit(9)

    for name in ("output", "work", "cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    metrics = LORA_ADAPTER.load()(
        StepContext(
            params=LORA_ADAPTER.params(recipe),
            settings=LORA_ADAPTER.settings(recipe),
            inputs={"base_model": base, "formatted_corpus": corpus},
            output=root / "output",
            work=root / "work",
            cache=root / "cache",
            progress=progress,
        )
    )
    (root / "metrics.json").write_text(json.dumps(metrics))


def metrics_of(root: Path) -> dict[str, Any]:
    """What the training that ended in `root` measured."""
    return json.loads((root / "metrics.json").read_text())


def assert_same(left: Path, right: Path) -> None:
    """Two adapters hold the same bytes."""
    for path in left.iterdir():
        assert (right / path.name).read_bytes() == path.read_bytes(), path.name


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]), *sys.argv[6:])
