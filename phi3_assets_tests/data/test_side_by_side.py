"""Processes that read side by side give what one gives, and none outlives the step."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from phi3_assets.data import side_by_side as module
from phi3_assets_tests.data.running import Run

PROGRAM = """
import sys, time
from pathlib import Path
from phi3_assets.data.side_by_side import side_by_side
if __name__ == "__main__":
    list(side_by_side(time.sleep, [(600,), (600,)], 10**9))
"""


def write(folder: Path) -> None:
    for name in ("a", "b", "c"):
        rows = "".join(f"What is {name}{i}?,It is {name}{i * i}.\n" for i in range(200))
        (folder / f"{name}.csv").write_text("Question,Best Answer\n" + rows + ",empty\n")


def test_processes_give_what_one_gives(tmp_path: Path, monkeypatch) -> None:
    found = []
    for name, least in (("one", 10**9), ("several", 0)):
        monkeypatch.setattr(module, "WORTHWHILE_BYTES", least)
        run = Run(tmp_path / name)
        write(run.data)
        metrics = run.ingest()
        files = sorted(path for path in run.raw.rglob("*") if path.is_file())
        found.append((metrics, {path.relative_to(run.raw): path.read_bytes() for path in files}))
    assert found[0] == found[1]


def test_processes_die_with_a_killed_parent(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, str(program)], env=os.environ)
    deadline = time.monotonic() + 30
    while len(children := psutil.Process(parent.pid).children(recursive=True)) < 3:  # two, and a resource tracker
        assert time.monotonic() < deadline, "the processes never came up"
        time.sleep(0.1)
    time.sleep(1.5)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
