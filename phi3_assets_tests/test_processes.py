"""A process tree ends with all it started: when stopped, when its leader dies, when its parent is killed.

Real processes, real signals. Each child writes the process ids of its tree to a file, and the tests look at those.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from phi3_assets.processes import ProcessTree

# A leader with a child in its group and one that left the group, as a data loader or a launcher may.
TREE = """
import os, signal, subprocess, sys, time
from phi3_assets.processes import die_with_parent
die_with_parent()
if sys.argv[2] == "stubborn":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleep = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); "
         "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=sys.argv[3] == "leaves")]
time.sleep(0.3)
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(" ".join(str(pid) for pid in [os.getpid(), *(child.pid for child in children)]))
os.replace(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(600)
"""


def wait_for(path: Path, timeout_s: float = 20) -> list[int]:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < deadline, "the tree never came up"
        time.sleep(0.05)
    return [int(pid) for pid in path.read_text().split()]


def alive(pids: list[int]) -> list[int]:
    living = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                living.append(pid)
        except psutil.NoSuchProcess:
            continue
    return living


def all_gone(pids: list[int], timeout_s: float = 10) -> bool:
    deadline = time.monotonic() + timeout_s
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pids)


def start(tmp_path: Path, manners: str = "polite", group: str = "stays") -> tuple[ProcessTree, list[int]]:
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", TREE, str(pids), manners, group]
    tree = ProcessTree(command, env=dict(os.environ), log=tmp_path / "log")
    return tree, wait_for(pids)


@pytest.mark.parametrize("manners", ["polite", "stubborn"])
@pytest.mark.parametrize("group", ["stays", "leaves"])
def test_stop_leaves_nothing(tmp_path, manners, group):
    tree, pids = start(tmp_path, manners, group)
    assert len(alive(pids)) == 3
    tree.stop(grace_s=0.3)
    assert alive(pids) == []


def test_close_kills_what_a_dead_leader_left(tmp_path):
    tree, pids = start(tmp_path)
    os.kill(tree.pid, signal.SIGKILL)
    assert tree.wait(5) == -signal.SIGKILL
    tree.close()
    assert all_gone(pids)


def test_nothing_outlives_a_killed_parent(tmp_path):
    """Dagster's Pipes client leaves the child running here: nobody is left to signal it."""
    pids = tmp_path / "pids"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time, pathlib\n"
            "from phi3_assets.processes import ProcessTree\n"
            "ProcessTree([sys.executable, '-c', *sys.argv[2:]], dict(os.environ), pathlib.Path(sys.argv[1]))\n"
            "time.sleep(600)",
            str(tmp_path / "log"),
            TREE,
            str(pids),
            "stubborn",
            "stays",
        ]
    )
    started = wait_for(pids)
    assert len(alive(started)) == 3
    parent.kill()
    parent.wait()
    assert all_gone(started)


def test_exit_code_and_output_are_kept(tmp_path):
    tree = ProcessTree([sys.executable, "-c", "print('said'); raise SystemExit(3)"], dict(os.environ), tmp_path / "log")
    while (code := tree.wait(0.5)) is None:
        pass
    tree.close()
    assert code == 3
    assert (tmp_path / "log").read_text() == "said\n"
