"""A process tree ends with all it started: when stopped, when its leader dies, when its parent is killed.

Real processes, real signals. Each child writes the process ids of its tree to a file, and the tests look at those.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from phi3_assets.worker.forkserver import ForkServer
from phi3_assets.worker.processes import ProcessTree, spawn
from phi3_assets_tests.shared_server import ROOT, shared_server

SAYS = [sys.executable, "-m", "phi3_assets_tests.worker.says"]
TREE = [sys.executable, "-m", "phi3_assets_tests.worker.tree"]
EVERY_WORKER = {"cuda": False, "threads": 1, "open": [0, 1, 2], "collects": True}


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


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """An environment in which a fork server can fork at once, because the first of its imports fails."""
    folder = tmp_path_factory.mktemp("light")
    (folder / "torch.py").write_text("raise ImportError('seeded fault')")
    return with_modules(folder)


def with_modules(folder: Path) -> dict[str, str]:
    """The environment with a folder of modules before all others."""
    return {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}"}


@pytest.fixture(scope="module")
def fork_server(light, tmp_path_factory):
    server = ForkServer(light, tmp_path_factory.mktemp("server") / "log")
    yield server
    server.close()


@pytest.fixture(params=["spawned", "forked"])
def starter(request):
    return spawn if request.param == "spawned" else request.getfixturevalue("fork_server").start


@pytest.fixture
def start(light, starter, tmp_path):
    def started(manners="polite", group="stays"):
        pids = tmp_path / "pids"
        command = [*TREE, str(pids), manners, group]
        return ProcessTree(command, light, tmp_path / "log", starter), wait_for(pids)

    return started


@pytest.mark.parametrize("manners", ["polite", "stubborn"])
@pytest.mark.parametrize("group", ["stays", "leaves"])
def test_stop_leaves_nothing(start, manners, group):
    tree, pids = start(manners, group)
    assert len(alive(pids)) == 3
    tree.stop(grace_s=0.3)
    assert alive(pids) == []


def test_close_kills_what_a_dead_leader_left(start):
    tree, pids = start()
    os.kill(tree.pid, signal.SIGKILL)
    assert tree.wait(5) == -signal.SIGKILL
    tree.close()
    assert all_gone(pids)


PARENT = """
import os, sys, time
from pathlib import Path
from phi3_assets.worker.forkserver import ForkServer
from phi3_assets.worker.processes import ProcessTree, spawn
log = Path(sys.argv[1])
start = spawn if sys.argv[2] == "spawned" else ForkServer(os.environ, log).start
ProcessTree([sys.executable, *sys.argv[3:]], os.environ, log, start)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["spawned", "forked"])
def test_nothing_outlives_a_killed_parent(tmp_path, light, how):
    """Dagster's Pipes client leaves the child running here: nobody is left to signal it."""
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log"), how, *TREE[1:], str(pids), "stubborn", "stays"]
    parent = subprocess.Popen(command, env=light)
    started = wait_for(pids)
    assert len(alive(started)) == 3
    started += [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]  # the server too
    parent.kill()
    parent.wait()
    assert all_gone(started)


def run(tree: ProcessTree) -> int:
    while (code := tree.wait(0.5)) is None:
        pass
    tree.close()
    return code


def test_exit_code_and_output_are_kept(tmp_path, light, starter):
    tree = ProcessTree([*SAYS, "something"], {**light, "SAID": "said"}, tmp_path / "log", starter)
    assert run(tree) == 3
    assert (tmp_path / "log").read_text().splitlines()[-1] == "said something"


class TestForkServer:
    """What only workers from a fork server have to stand."""

    def test_a_worker_has_the_imports_and_a_session_of_its_own(self, tmp_path):
        for _ in range(2):
            tree = ProcessTree([*SAYS, "--facts"], os.environ, tmp_path / "log", shared_server(1).start)
            assert run(tree) == 3
            facts = json.loads((tmp_path / "log").read_text().splitlines()[-1])
            assert facts == {**EVERY_WORKER, "imported": True, "session": tree.pid}

    def test_where_there_is_cuda_a_worker_is_a_python_of_its_own(self, tmp_path):
        """A fork cannot use CUDA once its parent has looked at it closely, as some libraries do when imported."""
        (tmp_path / "torch.py").write_text(
            "class cuda:\n"
            "    is_available = staticmethod(lambda: True)\n"
            "    is_initialized = staticmethod(lambda: False)\n"
        )
        env = with_modules(tmp_path)
        server = ForkServer(env, tmp_path / "log")
        tree = ProcessTree([*SAYS, "--facts"], env, tmp_path / "log", server.start)
        assert run(tree) == 3
        server.close()
        facts = json.loads((tmp_path / "log").read_text().splitlines()[-1])
        assert facts == {**EVERY_WORKER, "imported": False, "session": tree.pid}

    def test_several_at_once_end_each_with_its_own_code(self, tmp_path, light, fork_server):
        trees = [
            ProcessTree([*SAYS, "--code", str(code)], light, tmp_path / str(code), fork_server.start)
            for code in (5, 6, 7)
        ]
        assert [run(tree) for tree in trees] == [5, 6, 7]

    def test_a_killed_server_ends_its_workers_and_says_so(self, tmp_path, light):
        server = ForkServer(light, tmp_path / "log")
        pids = tmp_path / "pids"
        command = [*TREE, str(pids), "stubborn", "stays"]
        tree = ProcessTree(command, light, tmp_path / "log", server.start)
        started = wait_for(pids)
        os.kill(server.pid, signal.SIGKILL)
        assert run(tree) == -signal.SIGKILL
        assert all_gone(started)
        assert not server.alive
        with pytest.raises(RuntimeError, match="has ended"):
            ProcessTree(command, light, tmp_path / "log", server.start)
        server.close()

    def test_what_cannot_be_imported_is_in_the_log_and_stops_no_other_worker(self, tmp_path, light):
        server = ForkServer(light, tmp_path / "log")
        tree = ProcessTree([*SAYS, "it"], {**light, "SAID": "said"}, tmp_path / "log", server.start)
        assert run(tree) == 3
        server.close()
        log = (tmp_path / "log").read_text()
        assert "seeded fault" in log
        assert log.splitlines()[-1] == "said it"
