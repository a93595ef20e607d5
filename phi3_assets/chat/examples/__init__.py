"""Plain scripts for the three ways to infer; they import nothing of this package, so they can be copied and changed."""

import shutil
from pathlib import Path

NAMES = ("adapter.py", "merged.py", "int4.py")


def place_examples(inferences: Path) -> list[Path]:
    """Copy the scripts into a home's `inferences` folder; files that are there already are left alone.

    Returns:
        The scripts, in the order of `NAMES`.
    """
    inferences.mkdir(parents=True, exist_ok=True)
    placed = []
    for name in NAMES:
        target = inferences / name
        if not target.exists():
            shutil.copyfile(Path(__file__).with_name(name), target)
        placed.append(target)
    return placed
