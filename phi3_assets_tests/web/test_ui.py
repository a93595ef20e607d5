"""`phi3 ui`, which is `make ui`: Dagster's UI and the pages start together and end together."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import psutil
import pytest

from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import PHI3, gone

ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until_up(url: str, log: Path, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise AssertionError(f"{url} does not answer\n{log.read_text()}")


class Started:
    """`phi3 ui` in a session of its own, as in a terminal of its own."""

    def __init__(self, home: Path, pages_port: int) -> None:
        self.dagster_port, self.log = free_port(), home / "ui.log"
        self.process = subprocess.Popen(
            [*PHI3, "ui", "--port", str(self.dagster_port), "--home", str(home)],
            cwd=ROOT,
            env=clean_env(PHI3_WEB_PORT=str(pages_port), PYTHONUNBUFFERED="1"),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_up(self) -> list[psutil.Process]:
        wait_until_up(f"http://127.0.0.1:{self.dagster_port}/server_info", self.log)
        return self.tree()

    def tree(self) -> list[psutil.Process]:
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]


@pytest.fixture
def start(home):
    """Starts `phi3 ui`; whatever is left of it in the end is killed."""
    started, processes = [], []

    def start(pages_port):
        started.append(Started(home, pages_port))
        processes.extend(started[-1].wait_until_up())
        return started[-1]

    yield start
    for process in processes:
        if process.is_running():
            process.kill()
    for one in started:
        one.process.wait()


def test_one_ctrl_c_ends_both(start):
    port = free_port()
    ui = start(port)
    wait_until_up(f"http://127.0.0.1:{port}/", ui.log)
    processes = ui.tree()
    os.killpg(ui.process.pid, signal.SIGINT)  # a terminal sends it to the whole group
    ui.process.wait(timeout=60)
    assert gone(processes, 30)


def test_the_pages_do_not_outlive_a_ui_that_is_killed(start):
    """As an orphan it would hold the port, and the next one would show nothing."""
    port = free_port()
    ui = start(port)
    wait_until_up(f"http://127.0.0.1:{port}/", ui.log)
    (pages,) = [one for one in ui.tree() if one.cmdline()[3:4] == ["web"]]
    ui.process.kill()
    assert gone([pages], 15)


def test_a_port_that_is_taken_is_told_and_the_ui_goes_on(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ui = start(taken.getsockname()[1])
        deadline = time.monotonic() + 30
        while "Cannot listen on 127.0.0.1" not in ui.log.read_text():
            assert time.monotonic() < deadline, ui.log.read_text()
            time.sleep(0.3)
        wait_until_up(f"http://127.0.0.1:{ui.dagster_port}/server_info", ui.log)
