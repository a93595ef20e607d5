"""Helpers for tests that run the whole graph on the tiny model as a user does: through `phi3 run`."""

import os
import re
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


class Run:
    """`phi3 run` in a process of its own, what it says in a file; ended when the test ends."""

    def __init__(self, home: Path, env: dict[str, str], *arguments: str, said: Path | None = None) -> None:
        self._said = said or home.parent / "said-by-run.log"
        command = [*PHI3, "run", *arguments, "--home", str(home)]
        with self._said.open("w") as file:
            self.process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def said(self) -> str:
        """All it has said until now."""
        return self._said.read_text(encoding="utf-8")

    def wait_for(self, words: str, timeout_s: float = 120) -> re.Match[str]:
        """Wait until it says what this regular expression finds.

        Raises:
            AssertionError: It ended without, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self.process.poll() is not None  # looked at first, or its last words are missed
            if found := re.search(words, self.said):
                return found
            assert not ended, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)


def workers(home: Path, stage: str = "") -> list[psutil.Process]:
    """Every process that works in this home, or on one stage of it, whatever its name, and what those started.

    They are known by the log there that they write to.
    """
    found = []
    for process in psutil.process_iter():
        try:
            output = Path(os.readlink(f"/proc/{process.pid}/fd/1"))
            if (
                output.is_relative_to(home.resolve())
                and output.name == "worker.log"
                and stage in ("", output.parts[-3])
            ):
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


def executing(processes: list[psutil.Process]) -> psutil.Process:
    """The process that executes the op: above the worker, and above the server that workers are forked from."""
    return next(above for above in processes[0].parents() if "phi3_assets.worker" not in " ".join(above.cmdline()))
