"""Locks that no dead process can hold, and a wait that says for whom and ends at once."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.locks import Holder, holder_of, is_held, locked, try_lock

HOLD = """
import sys, time
from pathlib import Path
from phi3_assets.core.locks import Holder, locked
with locked(Path(sys.argv[1]), Holder("0a1b2c3d-run", sys.argv[2]), lambda who: print("waits for", who, flush=True)):
    print("has it", flush=True)
    time.sleep(1000)
"""


@pytest.fixture
def start():
    """Starts processes that hold a lock, or wait for it."""
    started = []

    def run(path, making="a model", before=()):
        process = subprocess.Popen(
            [*before, sys.executable, "-c", HOLD, str(path), making], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()


def test_a_killed_holder_holds_nothing(start, tmp_path):
    """A pool slot of Dagster's stayed taken when its run was killed, and the next run waited for ever."""
    path = tmp_path / "device.lock"
    holder = start(path)
    assert holder.stdout.readline() == "has it\n"
    assert is_held(path)
    assert try_lock(path, Holder()) is None
    holder.kill()
    holder.wait()
    assert not is_held(path)
    lock = try_lock(path, Holder())
    assert lock is not None
    lock.release()


def test_waiting_says_for_whom_and_a_signal_ends_it(start, tmp_path):
    """SIGTERM did not end the wait: a run that waited could only be killed."""
    path = tmp_path / "device.lock"
    holder = start(path, "lora_adapter 0123")
    assert holder.stdout.readline() == "has it\n"
    waiter = start(path)
    said = waiter.stdout.readline()
    assert said.startswith("waits for run 0a1b2c3d, which is making lora_adapter 0123 ")
    assert f"(process {holder.pid} on host " in said
    began = time.monotonic()
    waiter.send_signal(signal.SIGINT)
    waiter.wait(10)
    assert time.monotonic() - began < 2
    assert waiter.stdout.read() == ""  # said once
    assert is_held(path)


def test_another_host_name_holds_and_dies_as_well(start, tmp_path):
    """A container that was replaced under another host name left a run that nobody ended."""
    path = tmp_path / "device.lock"
    if subprocess.run(["unshare", "--uts", "--pid", "--fork", "true"], capture_output=True).returncode:
        pytest.skip("name spaces are not permitted here")
    rename = ["unshare", "--uts", "--pid", "--fork", "--kill-child", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"]
    holder = start(path, before=rename)
    assert holder.stdout.readline() == "has it\n"
    assert holder_of(path).host == "elsewhere"
    assert is_held(path)
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 5
    while is_held(path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_held(path)


def test_a_deleted_lock_file_does_not_let_two_in(tmp_path):
    """Whoever tidies up `work` must not undo exclusion among those who come afterwards."""
    path = tmp_path / "a.lock"
    first = try_lock(path, Holder())
    path.unlink()
    second = try_lock(path, Holder())
    assert second is not None
    assert try_lock(path, Holder()) is None
    first.release()
    second.release()


def test_released_by_an_error_and_by_the_end(tmp_path):
    path = tmp_path / "a.lock"
    with pytest.raises(KeyError), locked(path, Holder()):
        raise KeyError
    assert not is_held(path)
    assert holder_of(path) is None
    assert os.stat(path).st_size == 0


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    """Some network mounts have none: two runs would write at once, or end in a traceback."""

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(UserError, match=r"a.lock cannot be locked \(No locks available\).*on a local disk"):
        try_lock(tmp_path / "a.lock", Holder())
