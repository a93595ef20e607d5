"""The processes of one attempt at a job, in an environment like a job's, on nodes that are folders of this machine."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from phi3_assets_tests.azure_standin import warden

# All that a job gets to see of the machine that plays its nodes; OMP_NUM_THREADS says how many cores one has.
OF_THE_MACHINE = ("LANG", "LC_ALL", "OMP_NUM_THREADS", "TZ")


class Attempt:
    """All ranks of one attempt, each `bash -c COMMAND` in a session of its own, in a copy of the code per node."""

    def __init__(
        self, folder: Path, marker: str, code: Path | None, outputs: Path, nodes: int, ranks_per_node: int
    ) -> None:
        """Lay out the nodes; nothing runs yet.

        Args:
            folder: A fresh folder for this attempt.
            marker: What the host names of the nodes begin with.
            code: The job's code; None: it has none.
            outputs: What every node has as ./outputs.
            nodes: How many nodes there are.
            ranks_per_node: Processes on each.
        """
        self.logs = folder / "user_logs"
        self.logs.mkdir(parents=True)
        self._marker, self._ranks_per_node = marker, ranks_per_node
        self._nodes = [folder / f"node{number}" for number in range(nodes)]
        for node in self._nodes:
            (node / "home").mkdir(parents=True)
            (node / "tmp").mkdir()
            if code is None:
                (node / "code").mkdir()
            else:
                shutil.copytree(code, node / "code")
            if not (node / "code" / "outputs").exists():
                (node / "code" / "outputs").symlink_to(outputs)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: str, env: Mapping[str, str]) -> None:
        """Start every rank; `env` is what the job and the service add to a bare machine's environment."""
        total = len(self._nodes) * self._ranks_per_node
        port = str(_free_port())
        for rank in range(total):
            node, local = divmod(rank, self._ranks_per_node)
            name = "std_log.txt" if total == 1 else f"std_log_process_{rank}.txt"
            own = {
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self._nodes[node] / "home"),
                "TMPDIR": str(self._nodes[node] / "tmp"),
                "HOSTNAME": f"{self._marker}{node}",
                **{variable: os.environ[variable] for variable in OF_THE_MACHINE if variable in os.environ},
                "AZUREML_NODE_COUNT": str(len(self._nodes)),
                "NODE_RANK": str(node),
                "RANK": str(rank),
                "LOCAL_RANK": str(local),
                "WORLD_SIZE": str(total),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            with (self.logs / name).open("wb") as log:
                process = subprocess.Popen(
                    ["bash", "-c", command],
                    cwd=self._nodes[node] / "code",
                    env={**own, **env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._processes.append(process)

    def exit_codes(self) -> list[int | None]:
        """Of every rank; None: it runs."""
        return [process.poll() for process in self._processes]

    def terminate(self) -> None:
        """SIGTERM to every rank's group."""
        for process in self._processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End the nodes: whatever still runs on them is killed."""
        warden.kill(self._marker)
        for process in self._processes:
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
