"""Made once for a whole test run and read by many tests, though each process has session fixtures of its own."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import filelock
import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A directory that whoever asks first fills, while the others wait. Read it; copy it to change it.

    Args:
        factory: Of the process.
        name: The same for all who want the same.
        make: Fills a directory, which exists and is empty; nothing of it is kept where it raises.
    """
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # what the processes of one test run share
    folder, whole = root / "made" / name, root / "made" / f"{name}.whole"
    folder.parent.mkdir(exist_ok=True)
    with filelock.FileLock(root / "made" / f"{name}.lock"):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
