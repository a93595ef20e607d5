"""Checkpoints of a training in the step's work directory: which is whole, and one more before the process goes."""

import json
import re
import shutil
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

# Written last by transformers, so a checkpoint without it was cut off while it was written.
_LAST_FILE = "trainer_state.json"


def drop_unfinished(directory: Path) -> int | None:
    """Delete checkpoints that a kill left half-written, so that the trainer resumes from the last whole one.

    Returns:
        The step of the last whole checkpoint; None: there is none.
    """
    steps = []
    for path in directory.glob("checkpoint-*"):
        match = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if match and _whole(path):
            steps.append(int(match[1]))
        else:
            shutil.rmtree(path)
    return max(steps, default=None)


def _whole(path: Path) -> bool:
    try:
        json.loads((path / _LAST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


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
