"""Web server, daemon and code location as a deployment runs them: a process each, and GraphQL as the UI speaks it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
_MODULE = "phi3_assets.definitions"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Graphql:
    """A web server on this machine, asked as the UI does."""

    def __init__(self, port: int) -> None:
        """Nothing is asked yet."""
        self._address = f"http://127.0.0.1:{port}/graphql"

    def ask(self, query: str, **variables: object) -> dict[str, Any]:
        """The answer's data."""
        request = urllib.request.Request(
            self._address,
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data: dict[str, Any] = json.load(answer)["data"]
        return data

    def is_up(self) -> bool:
        """Whether it answers and has the code location loaded."""
        try:
            nodes = self.ask(
                "{workspaceOrError{...on Workspace{locationEntries{loadStatus locationOrLoadError{__typename}}}}}"
            )
            (entry,) = nodes["workspaceOrError"]["locationEntries"]
        except (OSError, KeyError, ValueError):
            return False
        return (entry["loadStatus"], entry["locationOrLoadError"]["__typename"]) == ("LOADED", "RepositoryLocation")

    def launch(self, config: dict[str, Any]) -> str:
        """Start the job `retrain`; gives the run's id."""
        selector = {"jobName": "retrain", "repositoryName": "__repository__", "repositoryLocationName": "phi3_assets"}
        answer = self.ask(
            "mutation($p: ExecutionParams!){launchRun(executionParams: $p)"
            "{__typename ...on LaunchRunSuccess{run{runId}} ...on PythonError{message}}}",
            p={"selector": selector, "runConfigData": json.dumps(config)},
        )
        assert "run" in answer["launchRun"], answer
        return str(answer["launchRun"]["run"]["runId"])

    def start_sensor(self, name: str) -> None:
        """What the switch under Automation does."""
        selector = {"sensorName": name, "repositoryName": "__repository__", "repositoryLocationName": "phi3_assets"}
        answer = self.ask("mutation($s: SensorSelector!){startSensor(sensorSelector: $s){__typename}}", s=selector)
        assert answer["startSensor"]["__typename"] == "Sensor", answer

    def runs(self) -> list[dict[str, Any]]:
        """All runs, newest first: runId, status, tags."""
        found = self.ask("{runsOrError{...on Runs{results{runId status tags{key value}}}}}")["runsOrError"]["results"]
        return [{**run, "tags": {tag["key"]: tag["value"] for tag in run["tags"]}} for run in found]

    def terminate(self, run_id: str) -> None:
        """What the button Terminate does."""
        self.ask(
            "mutation($r: String!){terminateRun(runId: $r, terminatePolicy: SAFE_TERMINATE){__typename}}", r=run_id
        )

    def status(self, run_id: str) -> str:
        """Of a run."""
        found = self.ask("query($r: ID!){runOrError(runId: $r){...on Run{status}}}", r=run_id)
        return str(found["runOrError"]["status"])

    def wait_for_status(self, run_id: str, *wanted: str, timeout_s: float = 60) -> str:
        """Wait until the run has one of these.

        Raises:
            AssertionError: The time is over.
        """
        deadline = time.monotonic() + timeout_s
        while (status := self.status(run_id)) not in wanted:
            assert time.monotonic() < deadline, f"{status}, not {wanted}"
            time.sleep(0.5)
        return status


class Deployment:
    """The three processes, each of which can be killed and started again on its own."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        """Start them.

        Args:
            folder: For logs and the list of code locations.
            env: With PHI3_HOME and DAGSTER_HOME.
        """
        self._folder, self._env = folder, env
        web, code = free_port(), free_port()
        workspace = folder / "workspace.yaml"
        workspace.write_text(
            f"load_from: [{{grpc_server: {{host: 127.0.0.1, port: {code}, location_name: phi3_assets}}}}]\n"
        )
        self.graphql = Graphql(web)
        self._commands = {
            "code server": [
                "dagster",
                "api",
                "grpc",
                "--module-name",
                _MODULE,
                "--host",
                "127.0.0.1",
                "--port",
                f"{code}",
            ],
            "webserver": [
                "dagster_webserver",
                "--workspace",
                str(workspace),
                "--host",
                "127.0.0.1",
                "--port",
                f"{web}",
            ],
            "daemon": ["dagster._daemon", "run", "--workspace", str(workspace)],
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        for name in self._commands:
            self.start(name)

    def start(self, name: str) -> None:
        """Start one of them, in a session of its own."""
        with (self._folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", *self._commands[name]],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """SIGKILL, for this process alone: what it started is left to itself."""
        self.processes[name].kill()
        self.processes[name].wait()

    def wait_until_up(self, timeout_s: float = 120) -> None:
        """Wait until the web server shows the code location.

        Raises:
            AssertionError: The time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not self.graphql.is_up():
            assert time.monotonic() < deadline, (self._folder / "webserver.log").read_text()[-2000:]
            time.sleep(0.5)

    def stop(self) -> None:
        """End all of them, and what is left of what they started."""
        for process in self.processes.values():
            left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for child in left:
                if child.is_running():
                    child.kill()
