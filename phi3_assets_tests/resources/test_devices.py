"""One step at a time on a device, any device that is free, and none that is not shown."""

import threading
import time

import pytest

from phi3_assets.core.locks import Holder
from phi3_assets.resources import devices as module
from phi3_assets.resources.devices import devices, hold_devices


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """What NVIDIA's driver shows of three GPUs, and a /tmp of our own."""
    folder = tmp_path / "gpus"
    for bus in ("0000:07:00.0", "0000:0a:00.0", "0000:47:00.0"):
        (folder / bus).mkdir(parents=True)
    monkeypatch.setattr(module, "GPUS", folder)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return folder


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("1,-1,2", ["1"]),
        ("1,1", ["1"]),
        ("", ["cpu"]),
        ("-1", ["cpu"]),
        ("GPU-a1b2, MIG-c3/1/0", ["GPU-a1b2", "MIG-c3/1/0"]),
    ],
)
def test_devices_are_those_that_cuda_shows(gpus, visible, expected):
    assert devices({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_without_a_gpu_there_is_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GPUS", tmp_path / "none")
    assert devices({"CUDA_VISIBLE_DEVICES": "0"}) == ["cpu"]


def take(home, env, count=1, waiting=lambda who: None):
    return hold_devices(home, env, count, Holder("r", "m"), waiting)


def test_a_step_takes_any_that_is_free_and_the_next_waits(gpus, tmp_path):
    """Two trainings side by side on one GPU end in out-of-memory."""
    env = {"CUDA_VISIBLE_DEVICES": "0,1"}
    order = []

    def third():
        with take(tmp_path / "home", env, waiting=lambda who: order.append("waits")) as names:
            order.append(names)

    with take(tmp_path / "home", env) as first:
        with take(tmp_path / "home", env) as second:
            assert (first, second) == (["0"], ["1"])
            thread = threading.Thread(target=third)
            thread.start()
            deadline = time.monotonic() + 10
            while "waits" not in order and time.monotonic() < deadline:
                time.sleep(0.01)
        thread.join(10)
    assert [item for item in order if item != "waits"] == [["1"]]


def test_two_homes_share_the_machines_gpus(gpus, tmp_path):
    with take(tmp_path / "one", {}) as first, take(tmp_path / "other", {}) as second:
        assert (first, second) == (["0"], ["1"])


def test_two_containers_on_one_home_do_not_meet_in_tmp(gpus, tmp_path, monkeypatch):
    with take(tmp_path / "home", {}) as first:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp of the other"))
        (tmp_path / "tmp of the other").mkdir()
        with take(tmp_path / "home", {}) as second:
            assert (first, second) == (["0"], ["1"])


def test_processes_that_train_together_get_a_device_each(gpus, tmp_path):
    with take(tmp_path, {}, count=2) as names:
        assert names == ["0", "1"]
    with take(tmp_path, {}, count=9) as names:  # too few: the step itself says so
        assert names == ["0", "1", "2"]


def test_homes_do_not_wait_for_one_another_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GPUS", tmp_path / "none")
    with take(tmp_path / "one", {}) as first, take(tmp_path / "other", {}) as second:
        assert first == second == ["cpu"]
