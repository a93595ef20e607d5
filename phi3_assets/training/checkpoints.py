"""Checkpoints of a training in the step's work directory: which is whole, and one more before the process goes."""

import json
import re
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from phi3_assets.core.sealing import damage, seal

FOLDER = "checkpoints"
"""Folder of a step's work directory that the checkpoints are in."""
STATE_FILE = "trainer_state.json"
"""File of a checkpoint with the trainer's own history."""


def seal_checkpoint(args: Any, step: int, *, apart: bool = False) -> None:
    """Seal a checkpoint that the trainer has just written; without a seal it is never resumed from.

    Args:
        args: The trainer's TrainingArguments.
        step: Optimiser steps done.
        apart: Whether each of the processes that train together has an `output_dir` of its own: then that of the first
            becomes whole, and the others keep nothing.
    """
    folder = Path(args.output_dir) / f"checkpoint-{step}"
    # Each process writes its own random state. And one that ended now would have the others ended too.
    if apart:
        _gather_random_states(args, folder)
    wait_for_all(args)
    if args.should_save:
        seal(folder, folder.name)
    wait_for_all(args)


def _gather_random_states(args: Any, folder: Path) -> None:
    """Bring the file with each process's random state to the first one's folder, as if they had a disk in common."""
    import torch

    name = f"rng_state_{args.process_index}.pth"
    states: list[Any] | None = [None] * args.world_size if args.should_save else None
    torch.distributed.gather_object((name, (folder / name).read_bytes()), states)
    if states is None:
        shutil.rmtree(folder)
        return
    for name, content in states:
        (folder / name).write_bytes(content)


def checkpoints_of(directory: Path) -> dict[int, Path]:
    """Folders of checkpoints, whole or not, by their step."""
    return {_step_of(path): path for path in directory.glob("checkpoint-*")}


def best_step(trainer_state: bytes) -> int | None:
    """The step whose adapter is the best so far, by a checkpoint's `STATE_FILE`; at the end it is taken up again."""
    best = json.loads(trainer_state)["best_global_step"]
    return None if best is None else int(best)


def drop_damaged(directory: Path, log: Callable[[str], None]) -> int | None:
    """Delete the checkpoints that cannot be resumed from, so that the trainer takes the last one that can.

    The trainer takes the one of the highest step, whatever it holds: one that a full disk or a kill had cut off failed
    every training of its identity for ever.

    Args:
        directory: Where the trainer keeps its checkpoints.
        log: Is told which are not resumed from, and why.

    Returns:
        The step of the last whole checkpoint; None: there is none, and training starts from the start.
    """
    paths = checkpoints_of(directory)
    wrong = {step: damage(path, path.name) for step, path in paths.items()}
    for step, path in sorted(paths.items()):
        best = None if wrong[step] else best_step((path / STATE_FILE).read_bytes())
        if best and wrong.get(best, "missing"):
            state = "missing" if best not in wrong else f"damaged ({wrong[best]})"
            wrong[step] = f"the best one so far is that of step {best}, which is {state}"
    for step, reason in sorted(wrong.items()):
        if reason:
            log(f"The checkpoint of step {step} is not resumed from: {reason}")
            shutil.rmtree(paths[step])
    whole = [step for step, reason in wrong.items() if not reason]
    if wrong and not whole:
        log("No checkpoint is whole: training starts from the start")
    return max(whole, default=None)


def _step_of(path: Path) -> int:
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else -1


def wait_for_all(args: Any) -> None:
    """Return when all processes that train together have called it."""
    if args.world_size > 1:
        import torch

        torch.distributed.barrier()


class StopRequest:
    """Holds back SIGINT and SIGTERM, as a spot machine or a person sends them, until a checkpoint is written.

    SIGKILL loses what was trained since the last checkpoint, these two lose nothing.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._kept: dict[int, Any] = {}

    def arm(self) -> None:
        """Begin to hold them back. Python delivers signals to the main thread alone; elsewhere nothing is held back."""
        if threading.current_thread() is threading.main_thread():
            self._kept = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}

    def disarm(self) -> None:
        """Stop holding them back."""
        for number, handler in self._kept.items():
            signal.signal(number, handler)
        self._kept = {}

    def deliver(self) -> None:
        """Let the held-back signal do what it would have done."""
        self.disarm()
        if self.number is not None:
            signal.raise_signal(self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
