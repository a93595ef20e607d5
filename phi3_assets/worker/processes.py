"""Starting a process tree, stopping all of it, and dying with the one who started it.

Dagster's PipesSubprocessClient signals its direct child only and never escalates, so a child that ignores SIGINT, or
whose parent is killed, keeps the GPU. Here the child leads a process group, and holds the reading end of a pipe whose
only writing end is in the parent: when the parent is gone, however it went, the pipe closes and the group is killed.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import psutil

PARENT_PIPE = "PHI3_PARENT_PIPE"


class Leader(Protocol):
    """The process that leads a tree."""

    @property
    def pid(self) -> int:
        """Process id."""

    def wait(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that ended it."""


class Start(Protocol):
    """Starts a leader, in a session of its own."""

    def __call__(self, command: list[str], env: Mapping[str, str], output: int, parent_pipe: int) -> Leader:
        """Start it.

        Args:
            command: Program and arguments.
            env: The whole environment, but for the number of `parent_pipe`.
            output: File descriptor for stdout and stderr.
            parent_pipe: File descriptor for `die_with_parent`.
        """


def spawn(command: list[str], env: Mapping[str, str], output: int, parent_pipe: int) -> Leader:
    """A fresh process; see `Start`."""
    return subprocess.Popen(
        command,
        env={**env, PARENT_PIPE: str(parent_pipe)},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(parent_pipe,),
        start_new_session=True,
    )


class ProcessTree:
    """A process, its group, and everything that they start."""

    def __init__(self, command: list[str], env: Mapping[str, str], log: Path, start: Start = spawn) -> None:
        """Start `command` in a group of its own; stdout and stderr go to the file `log`."""
        reading, self._pipe = os.pipe()
        try:
            with log.open("ab") as output:
                self._leader = start(command, env, output.fileno(), reading)
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reading)
        self.peak_memory_bytes = 0
        self._exit_code = 0
        # Popen.wait with a timeout looks twenty times a second, which a training on all cores feels.
        self._ended = threading.Event()
        threading.Thread(target=self._reap, name="reaper", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id of the leader, which is also the id of its group."""
        return self._leader.pid

    def wait(self, timeout_s: float) -> int | None:
        """Wait up to `timeout_s` seconds; the exit code, or None while it runs. Minus N: killed by signal N."""
        if self._ended.wait(timeout_s):
            return self._exit_code
        memory = sum(_resident_bytes(process) for process in self._members())
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)
        return None

    def stop(self, grace_s: float) -> None:
        """Stop the whole tree: SIGINT, after `grace_s` seconds SIGTERM, after as many again SIGKILL.

        Returns when no process of the tree is left. A second interrupt while waiting ends the politeness at once.
        """
        # Children that left the group are found through their parent, so look before the parent is gone.
        members = self._members()
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._signal(members, number)
                if self._wait_gone(members, grace_s):
                    break
                members = list({*members, *self._members()})
        finally:
            self._signal(members, signal.SIGKILL)
            self._wait_gone(members, 10)
            self._ended.wait()
            self.close()

    def close(self) -> None:
        """Kill what the leader left behind and let go of the pipe; call when the leader has ended."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        with suppress(ProcessLookupError):  # the usual case: nobody of the group is left
            os.killpg(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        self._exit_code = self._leader.wait()
        self._ended.set()

    def _members(self) -> list[psutil.Process]:
        try:
            leader = psutil.Process(self.pid)
            return [leader, *leader.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal(self, members: list[psutil.Process], number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)
        for process in members:
            try:
                if os.getpgid(process.pid) != self.pid:
                    process.send_signal(number)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue

    def _wait_gone(self, members: list[psutil.Process], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not any(_is_alive(process) for process in members) and not group_alive(self.pid):
                return True
            time.sleep(0.05)
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def group_alive(group: int) -> bool:
    """True while any process of the group exists, zombies included."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def die_with_parent() -> None:
    """Called first in the child: kill our whole group as soon as the parent is gone.

    A pipe and not PR_SET_PDEATHSIG: that fires when the parent's *thread* ends, and would spare our own children.
    SIGKILL and not SIGTERM: nobody is left to take the result, and checkpoints are written as the step goes.
    """
    value = os.environ.pop(PARENT_PIPE, None)
    if value is None:  # started by hand
        return
    reading = int(value)
    os.set_inheritable(reading, False)

    def watch() -> None:
        while os.read(reading, 1):
            pass
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
