"""The step onnx_int4_model in a process of its own that kills itself at a given step of the recovery."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepContext
from phi3_assets.models.environment import SETTINGS
from phi3_assets.quantising import forecast, recovery
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets_tests.shared_server import shared_server

FIELDS = {"int4_algorithm": "gptq", "int4_symmetric": False, "int4_embedding_bits": 4, "int4_recovery_steps": 12}


def quantise(
    inputs: dict[str, Path],
    root: Path,
    kill_at: int = -1,
    number: int = 0,
    threads: int = 1,
    *,
    blockwise: bool = False,
) -> int:
    """Quantise and recover in a process of its own; its exit code. `number` is the signal it sends itself."""
    arguments = [root, inputs["merged_model"], inputs["formatted_corpus"], kill_at, number, int(blockwise)]
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    env = {**os.environ, **SETTINGS, "OMP_NUM_THREADS": str(threads)}
    root.mkdir(exist_ok=True)
    with (root / "log").open("ab") as log, open(os.devnull) as nobody:  # it need not die with us
        code = shared_server(threads).start(command, env, log.fileno(), nobody.fileno()).wait()
    sys.stdout.write((root / "log").read_text())  # pytest shows it if the test fails
    return code


def main(root: Path, merged: Path, corpus: Path, at: int, number: int, blockwise: int) -> None:
    """In the process: the step, which is killed while it tells of step `at`."""
    # As the worker does: the tests may run under nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    recipe = load_recipe("tiny-test", FIELDS)
    if number == signal.SIGKILL:
        recovery.CHECKPOINT_S = 0.0
    if blockwise:
        forecast.Memory.choose_or_refuse = lambda self, log: forecast.Way.BLOCKWISE  # type: ignore[method-assign]

    def progress(**numbers: float) -> None:
        if numbers["step"] == at:
            os.kill(os.getpid(), number)

    for name in ("output", "work", "cache"):
        (root / name).mkdir(parents=True, exist_ok=True)
    metrics: dict[str, Any] = ONNX_INT4_MODEL.load()(
        StepContext(
            params=ONNX_INT4_MODEL.params(recipe),
            inputs={"merged_model": merged, "formatted_corpus": corpus},
            output=root / "output",
            work=root / "work",
            cache=root / "cache",
            progress=progress,
        )
    )
    (root / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:7]))
