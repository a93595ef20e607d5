"""Dagster's UI with its daemon, as a user starts it, for tests that speak to it or look at it."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil

from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.servers import ROOT, Graphql, free_port
from phi3_assets_tests.tiny_graph import PHI3


class DevServer(Graphql):
    """A real `phi3 ui` on a home, spoken to as the browser does.

    Attributes:
        url: Of Dagster's UI.
        pages_url: Of the pages that the UI links to.
        log: What both print.
    """

    def __init__(self, home: Path, pages: bool = False, **env: str) -> None:
        """Start it.

        Args:
            home: PHI3_HOME.
            pages: Whether the pages are served too.
            env: Further variables of its environment.
        """
        port, pages_port = free_port(), free_port() if pages else 0
        super().__init__(port)
        self.url, self.pages_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{pages_port}"
        self.log = home / "dev.log"
        self.process = subprocess.Popen(
            [*PHI3, "ui", "--port", str(port), "--home", str(home)],
            cwd=ROOT,
            env=clean_env(PHI3_WEB_PORT=str(pages_port), DAGSTER_HOME=str(home / ".dagster"), **env),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_up(self, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_up():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def wait_for_observation(self, run_id: str, asset: str, timeout_s: float = 60) -> None:
        """Until a run has told something of an asset while it makes it, such as its progress."""
        query = "query($k: AssetKeyInput!){assetOrError(assetKey: $k){...on Asset{assetObservations(limit: 1){runId}}}}"
        deadline = time.monotonic() + timeout_s
        while True:
            seen = self.ask(query, k={"path": [asset]})["assetOrError"]["assetObservations"]
            if seen and seen[0]["runId"] == run_id:
                return
            assert time.monotonic() < deadline, f"{asset} was not observed by {run_id} in {timeout_s} s"
            time.sleep(0.5)

    def terminate_all(self) -> None:
        """Terminate what runs, and wait until it has ended."""
        for run in self.runs():
            if run["status"] == "STARTED":
                self.terminate(run["runId"])
                self.wait_for_status(run["runId"], "CANCELED")

    def kill(self) -> None:
        """SIGKILL for all of it: server, daemon, run workers."""
        for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()
