"""Steps as processes of this machine."""

import contextlib
import os
import signal
import subprocess
import threading
import time

import dagster as dg
import psutil
import pytest

from phi3_assets import steps
from phi3_assets.core.home import artefact_dir
from phi3_assets.core.locks import Holder
from phi3_assets.core.step import StepCall
from phi3_assets.resources.devices import hold_devices
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets.steps import STEPS
from phi3_assets_tests.conftest import raw_dataset_call
from phi3_assets_tests.resources.execution_contract import ExecutionContract, base_model_call
from phi3_assets_tests.shared_server import SharedServerExecution


@pytest.fixture
def execution():
    return SharedServerExecution(grace_s=1)


def messages(instance):
    """What was said in all runs."""
    return [entry.user_message for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]


def terminate_when(instance, words):
    """Send this process SIGTERM, as Terminate does, once a run has said this."""
    while not any(words in line for line in messages(instance)):
        time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGTERM)


class TestLocalExecution(ExecutionContract):
    def test_log_stands_beside_the_artefact(self, execution, store):
        call = base_model_call()
        self.run(execution, store, call, {})
        directory = artefact_dir(store.home_path, STEPS[call.step].folder, call.step, call.identity)
        assert directory.with_name(f"{directory.name}.log").exists()
        assert not store.work_path(call).exists()

    def test_killed_worker_says_that_memory_may_be_short(self, execution, store, monkeypatch):
        """The kernel's out-of-memory killer gives no reason; the event log must."""
        killer = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        monkeypatch.setattr("phi3_assets.resources.local_execution.WORKER", ["-c", killer])
        call, inputs = raw_dataset_call(store)
        _, result = self.run(execution, store, call, inputs)
        assert "which is what the kernel does when memory runs out" in self.failure(result).description
        assert "are available now. Close other programs" in self.failure(result).description
        assert self.raised.allow_retries is True
        assert self.failure(result).metadata[TRANSIENT].value is True

    def test_a_defect_is_not_worth_another_try(self, execution, store, monkeypatch):
        monkeypatch.setattr("phi3_assets.resources.local_execution.WORKER", ["-c", "raise SystemExit(3)"])
        call, inputs = raw_dataset_call(store)
        _, result = self.run(execution, store, call, inputs)
        assert self.raised.allow_retries is False
        assert self.failure(result).metadata[TRANSIENT].value is False

    def test_the_end_of_the_log_is_a_log_whatever_stands_in_it(self, execution, store, monkeypatch):
        """Three backticks ended the block that it was shown in, and what came after them was Markdown, and HTML."""
        said = "first line\\n```\\n<img src=x>\\n# large"
        worker = ["-c", f"print('{said}'); raise SystemExit(3)"]
        monkeypatch.setattr("phi3_assets.resources.local_execution.WORKER", worker)
        call, inputs = raw_dataset_call(store)
        _, result = self.run(execution, store, call, inputs)
        lines = self.failure(result).metadata["end of log"].value.splitlines()
        assert "    <img src=x>" in lines
        assert all(line.startswith("    ") for line in lines)

    def test_a_step_on_a_device_waits_for_it_and_others_do_not(self, execution, store, instance):
        """Two trainings side by side on one GPU end in out-of-memory; reading files needs none."""
        held = hold_devices(store.home_path, os.environ, 99, Holder("0a1b2c3d", "lora_adapter 0123"), lambda who: None)
        call, inputs = raw_dataset_call(store)
        with held:
            _, result = self.run(execution, store, call, inputs)
            assert result.success
            adapter = StepCall(steps.LORA_ADAPTER.name, "1", {}, {}, {})
            threading.Thread(target=terminate_when, args=(instance, "waits for the device"), daemon=True).start()
            with contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
                self.run(execution, store, adapter, {}, instance)
        said = messages(instance)
        assert any("waits for the device, which is held by run 0a1b2c3d, which is making" in line for line in said)
        assert not any("runs in process" in line for line in said)

    def test_a_users_module_does_not_shadow_ours(self, execution, store, tmp_path, monkeypatch):
        (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
        monkeypatch.chdir(tmp_path)
        call, inputs = raw_dataset_call(store)
        _, result = self.run(execution, store, call, inputs)
        assert result.success


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB; needs the right to mount, which root and most CI containers have."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


class TestFullDisk:
    """A full disk ends in a sentence, and in no half artefact."""

    @pytest.mark.parametrize(
        ("room", "said"),
        [
            (300_000, "Fetching the base model needs about"),  # the weights are 0.43 MB: told before they are written
            (456_000, "The disk is full"),  # they have room, and what comes after them has not
        ],
    )
    def test_says_where_and_the_way_out(self, execution, small_disk, room, said):
        from phi3_assets.resources.local_store import LocalArtifactStore

        store = LocalArtifactStore(home=str(small_disk / "home"))
        (small_disk / "filler").write_bytes(b"\0" * (psutil.disk_usage(str(small_disk)).free - room))
        call = base_model_call()
        contract = ExecutionContract()
        made, result = contract.run(execution, store, call, {})
        assert made is None
        description = contract.failure(result).description
        assert said in description
        assert str(small_disk) in description
        assert "point PHI3_HOME at a larger disk" in description
        assert not artefact_dir(store.home_path, STEPS[call.step].folder, call.step, call.identity).exists()
        contract.nothing_staged(store, call)
        assert psutil.disk_usage(str(small_disk)).free > room - 50_000  # what it had written is gone again
