"""Helpers for tests that run the whole graph on the tiny model as a user does: through `phi3 run`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

PHI3 = [sys.executable, "-m", "phi3_assets.cli.app"]
TINY = ["--recipe", "tiny-test"]
# Longer than any test: only a signal ends it.
ENDLESS = ["--set", "num_train_epochs=100000"]


def phi3(*arguments: str, home: Path, env: dict[str, str], timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `phi3` to its end; stdout and stderr together in `stdout`."""
    return subprocess.run(
        [*PHI3, *arguments, "--home", str(home)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )


def workers(home: Path) -> list[psutil.Process]:
    """Every process that works in this home, whatever its name, and what those started: they write to a log there."""
    found = []
    for process in psutil.process_iter():
        try:
            output = Path(os.readlink(f"/proc/{process.pid}/fd/1"))
            if output.is_relative_to(home.resolve()) and output.name == "worker.log":
                found += [process, *process.children(recursive=True)]
        except (psutil.NoSuchProcess, OSError):
            continue
    return found


def wait_for_training(home: Path, timeout_s: float = 120) -> list[psutil.Process]:
    """The worker that trains, with all it started, once it is in the midst of training."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for log in (home / "work" / "lora_adapter").glob("*/worker.log"):
            if "Training on" in log.read_text(encoding="utf-8"):
                time.sleep(1)
                return workers(home)
        time.sleep(0.2)
    raise AssertionError(f"no training in {timeout_s} s")


def gone(processes: list[psutil.Process], timeout_s: float = 15) -> bool:
    """True when all have ended, within the time."""
    _, alive = psutil.wait_procs(processes, timeout=timeout_s)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []
