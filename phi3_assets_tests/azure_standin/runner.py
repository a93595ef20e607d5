"""Moves a job from Starting to its end: nodes, files, processes, preemption, cancel, time limit."""

import re
import socket
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from phi3_assets_tests.azure_standin import warden
from phi3_assets_tests.azure_standin.container import Attempt
from phi3_assets_tests.azure_standin.files import lay_out
from phi3_assets_tests.azure_standin.job import Job
from phi3_assets_tests.azure_standin.mounts import Mount, NotFound, remove
from phi3_assets_tests.azure_standin.names import ARTIFACT_STORE
from phi3_assets_tests.azure_standin.workspace import Workspace

TICK_S = 0.1
# How long each of Starting, Preparing and Finalizing takes, at least: long enough to be seen by who looks often.
STAGE_S = 0.1
MOUNT_S = 0.3
LOG_S = 1.0
CANCEL_GRACE_S = 5
# When one rank has failed the others may still say why they do.
OTHERS_GRACE_S = 2
DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.\d+)?S)?)?")


class Runner(threading.Thread):
    """Runs one job to its end, in a thread."""

    def __init__(
        self,
        workspace: Workspace,
        job: Job,
        folder: Path,
        marker: str,
        open_door: Callable[[str], socket.socket],
        network: Callable[[int], dict[str, str]],
        tell: Callable[[str], None],
    ) -> None:
        """Not started yet.

        Args:
            workspace: Where the job belongs.
            job: The job.
            folder: For its files; made, and removed at the end.
            marker: What the host names of its nodes begin with.
            open_door: Opens the door of the stand-in that is this job's own.
            network: What its environment says about a door's port.
            tell: Takes note that the stand-in itself is wrong.
        """
        super().__init__(name=f"job {job.name}", daemon=True)
        self._workspace, self._job, self._folder, self._marker = workspace, job, folder, marker
        self._open_door, self._network, self._tell = open_door, network, tell
        resources = job.properties["resources"]
        distribution = job.properties["distribution"] or {}
        self._nodes: int = resources["instanceCount"]
        # Without a distribution the command runs once, on the first node.
        self._ranks: int = distribution.get("processCountPerInstance") or 1
        self._running_nodes = self._nodes if distribution else 1
        limits = job.properties["limits"] or {}
        self._timeout_s = seconds(limits["timeout"]) if limits.get("timeout") else None
        self._deadline = float("inf")

    def run(self) -> None:
        """To the end."""
        job = self._job
        door = self._open_door(job.name)
        try:
            time.sleep(STAGE_S)
            end = None
            while end is None:
                end = self._wait_for_nodes() or self._attempt(door.getsockname()[1])
            job.move(end)
        except Exception:  # told to the session, which fails
            job.error = ("InternalServerError", traceback.format_exc())
            job.move("Failed")
            self._tell(f"Job {job.name}: {job.error[1]}")
        finally:
            warden.kill(self._marker)
            door.close()
            remove(self._folder)
            job.closed.set()

    def _wait_for_nodes(self) -> str | None:
        job = self._job
        while not self._workspace.nodes.take(job.compute, self._nodes, TICK_S):
            job.move("Queued")
            if (end := self._ordered_end()) is not None:
                return end
        return None

    def _attempt(self, port: int) -> str | None:
        """One attempt; how the job ended, or None where it was preempted."""
        job = self._job
        job.attempt += 1
        job.evict.clear()
        try:
            job.move("Preparing")
            return self._run_attempt(port)
        except NotFound as error:
            job.error = ("UserError", str(error))
            return "Failed"
        finally:
            self._workspace.nodes.give_back(job.compute, self._nodes)
            if job.events:
                job.withdraw()

    def _run_attempt(self, port: int) -> str | None:
        job, workspace = self._job, self._workspace
        folder = self._folder / str(job.attempt)
        files = lay_out(workspace, job, folder)
        marker = f"{self._marker}{job.attempt}-"
        attempt = Attempt(folder, marker, files.code, files.default, self._running_nodes, self._ranks)
        logs = Mount(workspace.containers[ARTIFACT_STORE], f"ExperimentRun/dcid.{job.name}/user_logs", attempt.logs)
        time.sleep(STAGE_S)
        if (end := self._ordered_end()) is not None:
            return end
        command = job.properties["command"]
        for placeholder, value in files.values.items():
            command = command.replace(placeholder, value)
        attempt.start(command, {**self._environment(port), **job.properties["environmentVariables"]})
        job.move("Running")
        if self._timeout_s is not None and self._deadline == float("inf"):
            self._deadline = time.monotonic() + self._timeout_s
        try:
            end = self._watch(attempt, files.mounts, logs)
        finally:
            attempt.kill()
        if end is None:
            # Outputs are not synchronised a last time: what had not arrived when the node went is lost.
            self._upload_logs(logs)
            job.move("Queued")
            return None
        if not job.killed.is_set():
            if end != "Canceled":
                job.move("Finalizing")
            self._upload_logs(logs)
            for mount in [*files.mounts, *(files.uploads if end == "Completed" else [])]:
                mount.synchronise()
            time.sleep(STAGE_S)
        return end

    def _watch(self, attempt: Attempt, mounts: list[Mount], logs: Mount) -> str | None:
        """Until the ranks have ended or something ended them; how the job ends, or None: preempted."""
        job = self._job
        next_mount = next_log = time.monotonic()
        failed_at = None
        while True:
            codes = attempt.exit_codes()
            if all(code == 0 for code in codes):
                return "Completed"
            failed = [code for code in codes if code]
            if failed and failed_at is None:
                failed_at = time.monotonic()
            if failed_at is not None and (None not in codes or time.monotonic() - failed_at > OTHERS_GRACE_S):
                job.error = (
                    "UserError",
                    f"Execution failed. User process 'bash' exited with status code {failed[0]}. Please check log file "
                    "'user_logs/std_log.txt' for error details.",
                )
                return "Failed"
            if job.evict.is_set():
                return None
            if (end := self._ordered_end()) is not None:
                if end == "Canceled":
                    self._end_politely(attempt)
                return end
            if time.monotonic() > next_mount:
                for mount in mounts:
                    mount.synchronise()
                next_mount = time.monotonic() + MOUNT_S
            if time.monotonic() > next_log:
                self._upload_logs(logs)
                next_log = time.monotonic() + LOG_S
            job.killed.wait(TICK_S)

    def _ordered_end(self) -> str | None:
        """How the job ends if somebody wants it to: its owner, its limit, the service, the test."""
        job = self._job
        if job.killed.is_set():
            return "Canceled"
        if job.doom is not None:
            job.error = job.doom
            return "Failed"
        if job.cancel.is_set():
            if self._workspace.hang_cancels:
                return None
            job.cancel_reason = "Cancelled by user."
            return "Canceled"
        if time.monotonic() > self._deadline:
            job.cancel_reason = f"Job exceeded its maximum run duration of {job.properties['limits']['timeout']}."
            job.warnings.append(job.cancel_reason)
            return "Canceled"
        return None

    def _end_politely(self, attempt: Attempt) -> None:
        attempt.terminate()
        deadline = time.monotonic() + CANCEL_GRACE_S
        while None in attempt.exit_codes() and time.monotonic() < deadline and not self._job.killed.is_set():
            time.sleep(TICK_S)

    def _upload_logs(self, logs: Mount) -> None:
        logs.synchronise()
        self._job.log_names = [f"user_logs/{name}" for name in logs.names()]

    def _environment(self, port: int) -> dict[str, str]:
        subscription, group = self._workspace.scope.split("/")[2:5:2]
        client = (self._job.properties["identity"] or {}).get("clientId")
        return {
            **self._network(port),
            "AZUREML_RUN_ID": self._job.name,
            "AZUREML_ARM_SUBSCRIPTION": subscription,
            "AZUREML_ARM_RESOURCEGROUP": group,
            "AZUREML_ARM_WORKSPACE_NAME": self._workspace.name,
            "AZUREML_ARM_PROJECT_NAME": self._job.properties["experimentName"],
            "MSI_ENDPOINT": f"http://127.0.0.1:{port}/MSI/auth",
            "MSI_SECRET": self._job.secret,
            **({"DEFAULT_IDENTITY_CLIENT_ID": client} if client else {}),
        }


def seconds(duration: str) -> float:
    """Of a time span in ISO 8601, such as PT1H30M.

    Raises:
        ValueError: It is none.
    """
    match = DURATION.fullmatch(duration)
    if match is None or not any(match.groups()):
        raise ValueError(f"{duration!r} is no time span of ISO 8601, such as PT1H.")
    days, hours, minutes, rest = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest
