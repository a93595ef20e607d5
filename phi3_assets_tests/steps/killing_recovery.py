"""The step onnx_int4_model in a process of its own that kills itself at a given step of the recovery."""

import os
import signal
import sys
from pathlib import Path

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.quantising import forecast, recovery
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets_tests.steps import alone

FIELDS = {"int4_algorithm": "gptq", "int4_symmetric": False, "int4_embedding_bits": 4, "int4_recovery_steps": 12}


def quantise(
    inputs: dict[str, Path], root: Path, kill_at: int = -1, number: int = 0, *, blockwise: bool = False
) -> int:
    """Quantise and recover in a process of its own; its exit code. `number` is the signal it sends itself."""
    models = inputs["merged_model"], inputs["formatted_corpus"]
    return alone.run(__name__, root, root, *models, kill_at, number, int(blockwise))


def main(root: Path, merged: Path, corpus: Path, at: int, number: int, blockwise: int) -> None:
    """In the process: the step, which is killed while it tells of step `at`."""
    if number == signal.SIGKILL:
        recovery.CHECKPOINT_S = 0.0
    if blockwise:
        forecast.Memory.choose_or_refuse = lambda self, log: forecast.Way.BLOCKWISE  # type: ignore[method-assign]

    def progress(**numbers: float) -> None:
        if numbers.get("step") == at:  # the parts before and after the recovery have none
            os.kill(os.getpid(), number)

    inputs = {"merged_model": merged, "formatted_corpus": corpus}
    alone.make(ONNX_INT4_MODEL, load_recipe("tiny-test", FIELDS), inputs, root, progress=progress)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:7]))
