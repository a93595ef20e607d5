"""Checkpoints of a training in the step's work directory: which of them is whole."""

import json
import re
import shutil
from pathlib import Path

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
