"""Ends everything that a stand-in started, also when the stand-in itself was killed.

Whatever it starts carries a host name of its own in its environment, as a container does: that finds grandchildren
that left their group, too. `python warden.py PREFIX` waits until its input closes and ends all with that prefix.
"""

import subprocess
import sys
import time

import psutil


def start(prefix: str) -> subprocess.Popen[bytes]:
    """A warden in a session of its own, where no Ctrl-C reaches it; it acts when this process is gone."""
    return subprocess.Popen([sys.executable, __file__, prefix], stdin=subprocess.PIPE, start_new_session=True)


def kill(prefix: str) -> None:
    """Kill every process whose HOSTNAME begins with `prefix`; returns when none is left."""
    while found := members(prefix):
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.02)


def members(prefix: str) -> list[psutil.Process]:
    """Processes whose HOSTNAME begins with `prefix`."""
    return [process for process in psutil.process_iter() if _hostname(process).startswith(prefix)]


def _hostname(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.environ().get("HOSTNAME", "")
    except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
        return ""


if __name__ == "__main__":
    sys.stdin.read()
    kill(sys.argv[1])
