"""Whatever ends a run, nothing of it goes on: no process holds the device, no half artefact stands.

Real runs of the tiny graph with a training that never ends by itself, ended by real signals: Ctrl-C and SIGKILL in a
terminal, Terminate in the UI, SIGKILL of the run worker and of a single step process. Dagster's own Pipes client
leaves the child running in three of these.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from phi3_assets.core.locks import Holder
from phi3_assets.resources.devices import hold_devices
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.servers import Graphql, free_port
from phi3_assets_tests.tiny_graph import ENDLESS, PHI3, TINY, executing, gone, phi3, wait_for_training

CONFIG = {"resources": {"recipe": {"config": {"recipe": "tiny-test", "num_train_epochs": 100000.0}}}}


def no_half_artefact(home: Path) -> bool:
    """Nothing that could be taken for the endless training's result."""
    adapters = [path for path in (home / "gen-model" / "lora_adapter").iterdir() if path.is_dir()]
    return len(adapters) == 1  # the one that `made_home` made


def start_endless(home: Path) -> subprocess.Popen[bytes]:
    command = [*PHI3, "run", *TINY, *ENDLESS, "--home", str(home)]
    return subprocess.Popen(command, env=clean_env(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_a_terminal(copied_home, number):
    run = start_endless(copied_home)
    processes = wait_for_training(copied_home)
    run.send_signal(number)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output.decode()
    assert b"Stopped. Nothing half-made was kept" in output
    assert gone(processes)
    assert no_half_artefact(copied_home)


def test_killed_in_a_terminal(copied_home):
    run = start_endless(copied_home)
    processes = wait_for_training(copied_home)
    run.kill()
    run.communicate()
    assert gone(processes)
    assert no_half_artefact(copied_home)
    # The dead run held the device; the next one must not wait for it.
    done = phi3("run", *TINY, home=copied_home, env=clean_env(), timeout_s=60)
    assert done.returncode == 0, done.stdout


class DevServer(Graphql):
    """A real `dagster dev` on a home, spoken to as the UI does."""

    def __init__(self, home: Path) -> None:
        port = free_port()
        super().__init__(port)
        root = Path(__file__).parent.parent
        self.log = home / "dev.log"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "--workspace", "workspace.yaml", "--port", str(port)],
            cwd=root,
            env=clean_env(PHI3_HOME=str(home), DAGSTER_HOME=str(home / ".dagster")),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_until_up(self, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_up():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)

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


@pytest.fixture
def server(copied_home):
    server = DevServer(copied_home)
    try:
        server.wait_until_up()
        yield server
    finally:
        server.stop()


def test_terminated_in_the_ui_and_after_that_the_run_worker_is_killed(server, copied_home):
    """One server for both, for it takes ten seconds to come up; the second run finds the device free."""
    run_id = server.launch(CONFIG)
    processes = wait_for_training(copied_home)
    server.terminate(run_id)
    server.wait_for_status(run_id, "CANCELED")
    assert gone(processes)
    assert no_half_artefact(copied_home)

    shutil.rmtree(copied_home / "work" / "lora_adapter")  # the log that `wait_for_training` looks for
    run_id = server.launch(CONFIG)
    processes = wait_for_training(copied_home)
    executing(processes).kill()
    assert gone(processes)
    server.wait_for_status(run_id, "FAILURE")
    assert no_half_artefact(copied_home)


def test_a_signal_ends_the_wait_for_a_device(copied_home):
    """A run waited without a word, and SIGTERM did not end it: it could only be killed."""
    holder = Holder("0a1b2c3d-0000", "lora_adapter 0123456789abcdef")
    with hold_devices(copied_home, os.environ, 99, holder, lambda who: None):
        run = subprocess.Popen(
            [*PHI3, "run", *TINY, *ENDLESS, "--home", str(copied_home)],
            env=clean_env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        said = read_until(run, "waits for the device")
        assert "held by run 0a1b2c3d, which is making lora_adapter 0123456789abcdef (process " in said
        run.send_signal(signal.SIGTERM)
        began = time.monotonic()
        read_until(run, "STOPPED")
        assert time.monotonic() - began < 5  # a fifth of a second on a quiet machine
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert no_half_artefact(copied_home)


def read_until(run: subprocess.Popen[str], words: str) -> str:
    """The first line that has these words."""
    read = []
    while words not in (line := run.stdout.readline()):
        read.append(line)
        assert line, "".join(read)
    return line


@pytest.mark.slow  # a real server, started twice and killed in the midst of a training
def test_dagster_dev_is_killed_and_started_again(server, copied_home):
    """The dead run stayed "started", and the next waited for its device without a word, and for ever."""
    dead = server.launch(CONFIG)
    processes = wait_for_training(copied_home)
    server.kill()
    assert gone(processes)
    (copied_home / "work").rename(copied_home / "work before")  # the log that `wait_for_training` looks for
    (copied_home / "work").mkdir()
    shutil.copytree(copied_home / "work before" / "runs", copied_home / "work" / "runs")
    again = DevServer(copied_home)
    try:
        again.wait_until_up()
        alive = again.launch(CONFIG)
        processes = wait_for_training(copied_home, timeout_s=60)
        again.wait_for_status(dead, "FAILURE")
        assert again.status(alive) == "STARTED"
        # `phi3 run` ends the dead when it starts, and nobody else.
        assert phi3("run", *TINY, home=copied_home, env=clean_env()).returncode == 0
        assert again.status(alive) == "STARTED"
        again.terminate(alive)
        assert gone(processes)
    finally:
        again.stop()


@pytest.mark.slow
def test_step_process_is_killed(copied_home, tmp_path):
    """With Dagster's multiprocess executor each op has a process of its own between the run worker and ours."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    run = subprocess.Popen(
        [sys.executable, "-m", "dagster", "job", "execute", "-j", "one_process_an_op", "-c", str(config)]
        + ["-m", "phi3_assets_tests.one_process_an_op"],
        cwd=Path(__file__).parent.parent,
        env=clean_env(PHI3_HOME=str(copied_home), DAGSTER_HOME=str(copied_home / ".dagster")),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    processes = wait_for_training(copied_home, timeout_s=180)
    step_process = executing(processes)
    assert step_process.pid != run.pid
    step_process.kill()
    output, _ = run.communicate(timeout=60)
    assert run.returncode != 0, output.decode()
    assert gone(processes)
    assert no_half_artefact(copied_home)
