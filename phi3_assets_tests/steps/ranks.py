"""Trainings in several processes, started as AzureML's distribution PyTorch starts them."""

import signal
import socket
from pathlib import Path
from typing import Any

from phi3_assets_tests.steps import alone, killing


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


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
            at, number = kill[1:] if kill[0] == rank else (-1, kill[2])
            own = (other_inputs or {}).get(rank, inputs)
            env = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "WORLD_SIZE": str(nodes * each),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank % each),
                "NODE_RANK": str(rank // each),
            }
            arguments = killing.arguments(own, folder, at, number, "tiny-test", overrides)
            self.processes.append(alone.start(killing.__name__, folder, *arguments, env=env))

    def folder(self, rank: int) -> Path:
        """Output, work and log of a rank."""
        return self.root / f"rank{rank}"

    def log(self, rank: int) -> str:
        """What a rank said, of all attempts."""
        return alone.log_of(self.folder(rank))

    def wait(self, timeout_s: float = 120) -> list[int]:
        """Exit codes, by rank."""
        try:
            return [process.wait(timeout_s) for process in self.processes]
        finally:
            for process in self.processes:
                process.send_signal(signal.SIGKILL)
                process.wait()
