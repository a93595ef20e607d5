"""A process that has imported what the model steps import, from which their workers are forked.

Importing torch, transformers, PEFT and Olive takes seconds, and every step is a process of its own; so a run pays once.

The socket to the server carries, for each worker, the length of a JSON object, the object {"command": [...],
"env": {...}}, and three file descriptors: the worker's log, the pipe of `die_with_parent`, and a socket on which the
server answers with two lines, the process id and later the exit code.
"""

import gc
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from phi3_assets.worker.processes import PARENT_PIPE

PRELOADED = (
    "dagster_pipes",
    "transformers.models.phi3.modeling_phi3",
    "transformers.trainer",
    "peft",
    "olive.passes.onnx.graph_surgeries",
    "olive.passes.onnx.model_builder",
    "olive.passes.pytorch.gptq",
    "olive.passes.pytorch.lora",
    "olive.passes.pytorch.rtn",
    "phi3_assets.core.manifest",
    "phi3_assets.steps",
)
_LENGTH_BYTES = 8


class ForkServer:
    """The server, for the process that starts it. It ends when that process does."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        """Start it. It can be asked for workers at once, and forks them when its imports are done.

        Args:
            env: Its environment, which settles what libraries read while they are imported.
            log: File for what libraries say while they are imported.
        """
        self.env = dict(env)
        self._control, theirs = socket.socketpair()
        with theirs, log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "phi3_assets.worker.forkserver", str(theirs.fileno())],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False when it was killed."""
        return self._process.poll() is None

    def start(self, command: list[str], env: Mapping[str, str], output: int, parent_pipe: int) -> "Forked":
        """Fork a worker; see `phi3_assets.worker.processes.Start`.

        Raises:
            RuntimeError: The server has ended.
        """
        answers, theirs = socket.socketpair()
        request = json.dumps({"command": command, "env": dict(env)}).encode()
        lines = answers.makefile("r")
        try:
            with theirs:
                header = len(request).to_bytes(_LENGTH_BYTES, "big")
                socket.send_fds(self._control, [header], [output, parent_pipe, theirs.fileno()])
                self._control.sendall(request)
            first = lines.readline()
        except OSError as error:
            raise RuntimeError("The process that workers are forked from has ended.") from error
        finally:
            answers.close()  # `lines` keeps it open
        if not first:
            raise RuntimeError("The process that workers are forked from has ended.")
        return Forked(int(first), lines)

    def close(self) -> None:
        """End the server; it holds nothing that would be lost."""
        self._control.close()
        self._process.kill()
        self._process.wait()


class Forked:
    """A worker that a fork server started; see `phi3_assets.worker.processes.Leader`."""

    def __init__(self, pid: int, answers: IO[str]) -> None:
        """The exit code comes as the next line of `answers`."""
        self.pid = pid
        self._answers = answers

    def wait(self) -> int:
        """Wait for its end; the exit code, or minus the number of the signal that ended it."""
        with self._answers:
            line = self._answers.readline()
        if line:
            return int(line)
        # The server was killed, and with it went the only one who can be told how the worker ends.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        return -signal.SIGKILL


def serve(control: socket.socket) -> None:
    """Fork workers as asked until the other end of `control` is closed; in a worker, raises what the worker raises."""
    can_fork = preload()
    with open(os.devnull, "wb") as nothing:  # the log is that of a step, which may be gone long before us
        _redirect(nothing.fileno())
    waiting: dict[int, tuple[int, socket.socket]] = {}
    with selectors.PollSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not control:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    pid, answers = waiting.pop(key.fd)
                    _, status = os.waitpid(pid, 0)
                    _answer(answers, os.waitstatus_to_exitcode(status))
                    answers.close()
                    continue
                if (request := _receive(control)) is None:
                    return
                what, output, parent_pipe, answers = request
                if (pid := os.fork()) == 0:
                    for other in (control, answers, *(others for _, others in waiting.values())):
                        other.close()
                    for descriptor in waiting:
                        os.close(descriptor)
                    _become(what["command"], what["env"], output, parent_pipe, can_fork)
                    return
                for descriptor in (output, parent_pipe):
                    os.close(descriptor)
                _answer(answers, pid)
                ended = os.pidfd_open(pid)
                waiting[ended] = (pid, answers)
                selector.register(ended, selectors.EVENT_READ)


def preload() -> bool:
    """Import what workers need; False where a fork could not use it, which is where there is CUDA."""
    gc.disable()  # what is imported stays: looking through it for garbage, again and again, is a sixth of the time
    try:
        import torch

        if torch.cuda.is_available():
            return False
        from phi3_assets.olive.passes import olive_log

        with olive_log():
            for name in PRELOADED:
                import_module(name)
    except Exception:  # the worker that needs it fails at the same place, and is asked for its reason
        traceback.print_exc()
    gc.collect()
    gc.freeze()  # so that a worker's collector does not touch, and thereby copy, the pages it shares
    gc.enable()
    return True


def _receive(control: socket.socket) -> tuple[Any, int, int, socket.socket] | None:
    """A request and its descriptors; None when there will be no more."""
    header, descriptors, _, _ = socket.recv_fds(control, _LENGTH_BYTES, 3)
    if not header:
        return None
    left = int.from_bytes(header, "big")
    parts = []
    while left:
        part = control.recv(left)
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    output, parent_pipe, answers = descriptors
    return json.loads(b"".join(parts)), output, parent_pipe, socket.socket(fileno=answers)


def _answer(answers: socket.socket, number: int) -> None:
    with suppress(BrokenPipeError):  # whoever asked waits no longer
        answers.sendall(f"{number}\n".encode())


def _redirect(output: int) -> None:
    for descriptor in (1, 2):
        os.dup2(output, descriptor)


def _become(command: list[str], env: dict[str, str], output: int, parent_pipe: int, can_fork: bool) -> None:
    """Turn this process, just forked, into what `command` says."""
    os.setsid()
    _redirect(output)
    os.close(output)
    os.environ.clear()
    os.environ.update(env)
    os.environ[PARENT_PIPE] = str(parent_pipe)
    if not can_fork or command[1] != "-m":
        os.set_inheritable(parent_pipe, True)
        os.execv(command[0], command)  # noqa: S606 (our own interpreter)
    sys.argv = command[2:]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
