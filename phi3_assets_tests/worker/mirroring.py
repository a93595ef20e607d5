"""Checkpoints that look like a trainer's and cost nothing; run as a script, a step that writes them without end."""

import json
import random
import shutil
import sys
from pathlib import Path

from phi3_assets.core.sealing import seal
from phi3_assets.training.checkpoints import FOLDER
from phi3_assets.worker.mirror import Mirror

BYTES = 3_000_000


def weights(step: int) -> bytes:
    """What the checkpoint of a step holds."""
    return random.Random(step).randbytes(BYTES)


def best_of(step: int) -> int:
    """Every fifth step is evaluated, every other of these is better than all before."""
    return max(step // 10 * 10, 1)


def write_checkpoint(work: Path, step: int, best: int | None = None) -> Path:
    """Write and seal one, and remove older ones as the trainer does: two are kept, and the best."""
    checkpoints = work / FOLDER
    folder = checkpoints / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(weights(step))
    (folder / "trainer_state.json").write_text(json.dumps({"best_global_step": best}))
    seal(folder, folder.name)
    for path in checkpoints.iterdir():
        number = int(path.name.partition("-")[2])
        if number not in (step, step - 1, best):
            shutil.rmtree(path)
    return folder


def main(work: Path, folder: Path) -> None:
    """Go on from what is there, for ever."""
    mirror = Mirror(work, folder, print)
    step = mirror.restore() or 0
    with mirror:
        while True:
            step += 1
            write_checkpoint(work, step, best_of(step))
            print(step, flush=True)


if __name__ == "__main__":
    from phi3_assets.worker import mirror as module

    module.POLL_S = 0.0
    main(Path(sys.argv[1]), Path(sys.argv[2]))
