"""Trainings in several processes, started as AzureML's distribution PyTorch starts them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from phi3_assets.models.environment import SETTINGS
from phi3_assets.worker.processes import Leader
from phi3_assets_tests.shared_server import shared_server
from phi3_assets_tests.steps import killing


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Started:
    """A process that was forked from the tests' server, with what a `subprocess.Popen` offers."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._code = -1
        self._thread = threading.Thread(target=self._reap, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> int:
        """Its exit code, once it has ended; `subprocess.TimeoutExpired` if that takes longer."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise subprocess.TimeoutExpired(str(self._leader.pid), timeout_s or 0)
        return self._code

    def kill(self) -> None:
        """Kill it, if it still runs."""
        with suppress(ProcessLookupError):
            os.kill(self._leader.pid, signal.SIGKILL)

    def _reap(self) -> None:
        self._code = self._leader.wait()


class Ranks:
    """Several ranks of one training, each with folders of its own below `root` and a log there."""

    def __init__(
        self,
        inputs: dict[str, Path],
        root: Path,
        nodes: int = 2,
        each: int = 2,
        kill: tuple[int, int, int] = (-1, -1, 0),
        other_inputs: dict[int, dict[str, Path]] | None = None,
        **overrides: Any,
    ) -> None:
        """Start them.

        `kill` is which rank sends itself, when which step is told, which signal (0: it just ends).
        """
        self.root = root
        port = str(free_port())
        self.processes = []
        for rank in range(nodes * each):
            folder = self.folder(rank)
            folder.mkdir(parents=True, exist_ok=True)
            at, number = kill[1:] if kill[0] == rank else (-1, kill[2])
            own = (other_inputs or {}).get(rank, inputs)
            arguments = [folder, own["base_model"], own["formatted_corpus"], at, number, "tiny-test"]
            command = [sys.executable, "-m", killing.__name__, *map(str, arguments), json.dumps(overrides)]
            env = {
                **os.environ,
                **SETTINGS,
                "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": str(nodes * each),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % each),
                "NODE_RANK": str(rank // each),
            }
            with (folder / "log.txt").open("ab") as log, open(os.devnull) as nobody:
                self.processes.append(Started(shared_server(1).start(command, env, log.fileno(), nobody.fileno())))

    def folder(self, rank: int) -> Path:
        """Output, work and log of a rank."""
        return self.root / f"rank{rank}"

    def log(self, rank: int) -> str:
        """What a rank said, of all attempts."""
        return (self.folder(rank) / "log.txt").read_text()

    def wait(self, timeout_s: float = 120) -> list[int]:
        """Exit codes, by rank."""
        try:
            return [process.wait(timeout_s) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
