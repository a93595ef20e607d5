"""A step in a process of its own, which may be killed or kill itself; what that takes, whichever step it is."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from phi3_assets.core.recipe import Recipe
from phi3_assets.core.step import Step, StepContext
from phi3_assets.models.environment import SETTINGS
from phi3_assets.worker.processes import Leader
from phi3_assets_tests.shared_server import shared_server


class Started:
    """A process that was forked from the tests' server, with what a `subprocess.Popen` offers."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._code: int | None = None
        self._thread = threading.Thread(target=self._reap, daemon=True)
        self._thread.start()

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._code

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, once it has ended; `subprocess.TimeoutExpired` if that takes longer."""
        self._thread.join(timeout_s)
        if self._code is None:
            raise subprocess.TimeoutExpired(str(self._leader.pid), timeout_s or 0)
        return self._code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self._leader.pid, number)

    def _reap(self) -> None:
        self._code = self._leader.wait()


def start(
    module: str, root: Path, *arguments: object, threads: int = 1, env: Mapping[str, str] | None = None
) -> Started:
    """Run a module with these arguments in a process of its own; what it prints is appended to `log` in `root`."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    env = {**os.environ, **SETTINGS, "OMP_NUM_THREADS": str(threads), **(env or {})}
    root.mkdir(parents=True, exist_ok=True)
    with (root / "log").open("ab") as log, open(os.devnull) as nobody:  # it need not die with us
        return Started(shared_server(threads).start(command, env, log.fileno(), nobody.fileno()))


def run(module: str, root: Path, *arguments: object, threads: int = 1) -> int:
    """`start`, and wait for its end; its exit code."""
    code = start(module, root, *arguments, threads=threads).wait()
    sys.stdout.write(log_of(root))  # pytest shows it if the test fails
    return code


def make(step: Step, recipe: Recipe, inputs: Mapping[str, Path], root: Path, **more: Any) -> None:
    """In that process: the step, with its directories and what it measures below `root`; `more` of its context."""
    # As the worker does: the tests may run under nohup.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    folders = {name: root / name for name in ("output", "work", "cache")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    context = StepContext(params=step.params(recipe), settings=step.settings(recipe), inputs=inputs, **folders, **more)
    metrics = step.load()(context)
    (root / "metrics.json").write_text(json.dumps(metrics))


def log_of(root: Path) -> str:
    """What was said in `root`, by all attempts."""
    path = root / "log"
    return path.read_text() if path.exists() else ""


def metrics_of(root: Path) -> dict[str, Any]:
    """What the step that ended in `root` measured."""
    return json.loads((root / "metrics.json").read_text())


def assert_same(left: Path, right: Path) -> None:
    """Two artefacts hold the same bytes."""
    for path in left.iterdir():
        assert (right / path.name).read_bytes() == path.read_bytes(), path.name
