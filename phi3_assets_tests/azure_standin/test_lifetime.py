"""Nothing of a stand-in outlives whoever started it."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets_tests.azure_standin import warden
from phi3_assets_tests.azure_standin.bed import Bed
from phi3_assets_tests.azure_standin.submitting import submit

pytestmark = pytest.mark.azure


def gone(marker, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while warden.members(marker):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_killed_stand_in_takes_azurite_and_jobs_along(tmp_path, monkeypatch):
    traffic = tmp_path / "traffic.jsonl"
    monkeypatch.setenv("PHI3_AZURE_TRAFFIC", str(traffic))
    bed = Bed(tmp_path)
    bed.apply(monkeypatch)
    environment = "azureml://registries/azureml/environments/sklearn-1.5/versions/1"
    name = submit(Clients(load_settings()), "setsid sleep 1000 & sleep 1000", environment=environment)
    bed.wait_for(name, "Running")
    lines = [json.loads(line) for line in traffic.read_text().splitlines()]
    assert lines == bed.traffic()
    marker = f"standin-{bed.pid}-"
    deadline = time.monotonic() + 20
    while sum(process.name() == "sleep" for process in warden.members(marker)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(bed.pid, signal.SIGKILL)
    assert gone(marker)
    bed.close()


def test_a_killed_test_process_takes_the_stand_in_along(tmp_path):
    script = (
        "import sys, time; from pathlib import Path; from phi3_assets_tests.azure_standin.bed import Bed; "
        "bed = Bed(Path(sys.argv[1])); print(bed.pid, flush=True); time.sleep(1000)"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    marker = f"standin-{int(child.stdout.readline())}-"
    assert warden.members(marker)
    child.kill()
    child.wait()
    assert gone(marker)
