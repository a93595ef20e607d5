"""Dagster's UI with its daemon, as a user starts it, for tests that speak to it or look at it."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import psutil

from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import PHI3


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class DevServer:
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
        self.url, self.pages_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{pages_port}"
        self.log = home / "dev.log"
        self.process = subprocess.Popen(
            [*PHI3, "ui", "--port", str(port), "--home", str(home)],
            cwd=Path(__file__).parent.parent,
            env=clean_env(PHI3_WEB_PORT=str(pages_port), DAGSTER_HOME=str(home / ".dagster"), **env),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def ask(self, query: str, **variables: object) -> dict:
        request = urllib.request.Request(
            f"{self.url}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]

    def wait_until_up(self, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                nodes = self.ask("{workspaceOrError{...on Workspace{locationEntries{loadStatus}}}}")
                if nodes["workspaceOrError"]["locationEntries"][0]["loadStatus"] == "LOADED":
                    return
            except (OSError, KeyError, IndexError):
                pass
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

    def launch(self, recipe: Mapping[str, object]) -> str:
        """Start the job `retrain`; returns the run id.

        Args:
            recipe: What the launchpad would give the resource `recipe`.
        """
        config = {"resources": {"recipe": {"config": recipe}}}
        selector = {
            "jobName": "retrain",
            "repositoryName": "__repository__",
            "repositoryLocationName": "phi3_assets",
        }
        answer = self.ask(
            "mutation($p: ExecutionParams!){launchRun(executionParams: $p)"
            "{__typename ...on LaunchRunSuccess{run{runId}} ...on PythonError{message}}}",
            p={"selector": selector, "runConfigData": json.dumps(config)},
        )
        return answer["launchRun"]["run"]["runId"]

    def terminate(self, run_id: str) -> None:
        """What the button Terminate does."""
        self.ask(
            "mutation($r: String!){terminateRun(runId: $r, terminatePolicy: SAFE_TERMINATE){__typename}}", r=run_id
        )

    def status(self, run_id: str) -> str:
        return self.ask("query($r: ID!){runOrError(runId: $r){...on Run{status}}}", r=run_id)["runOrError"]["status"]

    def wait_for_status(self, run_id: str, wanted: str, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while (status := self.status(run_id)) != wanted:
            assert time.monotonic() < deadline, f"{status}, not {wanted}"
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

    def runs(self) -> dict[str, str]:
        """The status of each run by its id, the newest first."""
        found = self.ask("{runsOrError{...on Runs{results{runId status}}}}")["runsOrError"]["results"]
        return {run["runId"]: run["status"] for run in found}

    def terminate_all(self) -> None:
        """Terminate what runs, and wait until it has ended."""
        for run_id, status in self.runs().items():
            if status == "STARTED":
                self.terminate(run_id)
                self.wait_for_status(run_id, "CANCELED")

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
