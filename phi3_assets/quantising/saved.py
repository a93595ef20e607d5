"""Checkpoints of a recovery in the step's work directory, in the form of a training's; the last one is kept."""

import shutil
import time
from pathlib import Path
from typing import Any

from phi3_assets.core.files import write_json
from phi3_assets.core.sealing import checksum, seal
from phi3_assets.core.step import StepContext
from phi3_assets.training.checkpoints import FOLDER, STATE_FILE, StopRequest, drop_damaged

_STATE = "recovery.pt"
ASK_S = 0.2


class Saved:
    """What a killed recovery goes on from."""

    def __init__(self, ctx: StepContext, quantised: Path, way: str, stop: StopRequest) -> None:
        """Nothing is read yet.

        Args:
            ctx: Of the step.
            quantised: The integers that are recovered.
            way: How; a checkpoint of another way is of no use.
            stop: What holds signals back.
        """
        self._ctx, self._stop = ctx, stop
        self._folder = ctx.work / FOLDER
        # Another machine's Gptq may have rounded otherwise.
        integers = {path.name: checksum(path)[1] for path in sorted(quantised.glob("*.safetensors"))}
        self._of = {"integers": integers, "way": way}

    def load(self, device: Any) -> tuple[int, dict[str, Any]]:
        """Steps done by the last whole checkpoint of this recovery, and its state; 0 and {}: there is none."""
        import torch

        step = drop_damaged(self._folder, self._ctx.log)
        if step is None:
            return 0, {}
        state = torch.load(self._folder / f"checkpoint-{step}" / _STATE, map_location=device, weights_only=True)
        for what, told in (("integers", "of other integers"), ("way", f"not {self._of['way']}")):
            if state["of"][what] != self._of[what]:
                self._ctx.log(f"The checkpoint of step {step} is not resumed from: it is {told}")
                shutil.rmtree(self._folder)
                return 0, {}
        self._ctx.log(f"Resuming the recovery from the checkpoint of step {step}")
        return step, state

    def save(self, step: int, **state: Any) -> None:
        """Write a checkpoint, and keep no older one."""
        import torch

        folder = self._folder / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        torch.save({"of": self._of, **state}, folder / _STATE)
        write_json(folder / STATE_FILE, {"best_global_step": None, "global_step": step})
        seal(folder, folder.name)
        for other in self._folder.iterdir():
            if other != folder:
                shutil.rmtree(other)

    def heed(self, *, announced: bool) -> None:
        """Once all is saved that is to be: wait while the machine may go, and end where a signal said so."""
        if announced:
            self._ctx.interruption.checkpoint_written()
            while self._ctx.interruption.announced() and self._stop.number is None:
                time.sleep(ASK_S)
        if self._stop.number is not None:
            self._stop.deliver()
