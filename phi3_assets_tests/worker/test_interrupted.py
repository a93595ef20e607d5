"""A machine that is taken away with notice loses nothing, and one that is spared goes on as if nothing had been."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phi3_assets.worker.checkpoint_copies import copies_in
from phi3_assets_tests.steps.alone import Started, assert_same, metrics_of
from phi3_assets_tests.steps.killing import SEVERAL_EPOCHS, train
from phi3_assets_tests.steps.ranks import free_port
from phi3_assets_tests.worker.interrupted import SLOW_STEP, start, steps_of
from phi3_assets_tests.worker.metadata_service import MetadataService

TOGETHER = {**SEVERAL_EPOCHS, "lora_dropout": 0.0, "per_device_train_batch_size": 2}


@pytest.fixture
def service() -> Iterator[MetadataService]:
    service = MetadataService()
    yield service
    service.close()


@pytest.fixture(scope="module")
def uninterrupted(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("uninterrupted")
    assert train(inputs, root) == 0
    return root / "output"


def wait_until(condition: Callable[[], object], process: Started) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def announce_in_step_8(service: MetadataService, root: Path, process: Started) -> None:
    wait_until(lambda: SLOW_STEP in steps_of(root), process)
    service.announce()


def copied(copies: Path) -> list[int]:
    return [copy.step for copy in copies_in(copies)]


def test_waits_with_a_checkpoint_and_goes_on_when_it_is_spared(inputs, uninterrupted, service, tmp_path: Path) -> None:
    process = start(tmp_path, inputs, tmp_path / "copies", service, heeds=True, **SEVERAL_EPOCHS)
    announce_in_step_8(service, tmp_path, process)
    wait_until(lambda: copied(tmp_path / "copies"), process)
    assert copied(tmp_path / "copies") == [SLOW_STEP + 1]
    time.sleep(1.5)
    assert process.poll() is None  # a job whose process ends has ended
    assert steps_of(tmp_path)[-1] <= SLOW_STEP + 1
    service.withdraw()
    assert process.wait(60) == 0
    assert steps_of(tmp_path)[-1] > SLOW_STEP + 1
    assert_same(uninterrupted, tmp_path / "output")


def test_the_next_machine_goes_on_from_the_copy(inputs, uninterrupted, service, tmp_path: Path) -> None:
    process = start(tmp_path / "first", inputs, tmp_path / "copies", service, heeds=True, **SEVERAL_EPOCHS)
    announce_in_step_8(service, tmp_path / "first", process)
    wait_until(lambda: copied(tmp_path / "copies"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    service.withdraw()
    assert start(tmp_path / "second", inputs, tmp_path / "copies", service, **SEVERAL_EPOCHS).wait(60) == 0
    assert metrics_of(tmp_path / "second")["resumed_from_step"] == SLOW_STEP + 1
    assert_same(uninterrupted, tmp_path / "second" / "output")


@pytest.mark.slow
def test_a_signal_ends_the_wait(inputs, service, tmp_path: Path) -> None:
    """A job that is cancelled while it waits need not be killed."""
    process = start(tmp_path, inputs, tmp_path / "copies", service, heeds=True, **SEVERAL_EPOCHS)
    announce_in_step_8(service, tmp_path, process)
    wait_until(lambda: copied(tmp_path / "copies"), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM


def test_all_ranks_wait_for_the_node_that_is_announced(inputs, service, tmp_path: Path) -> None:
    """The other node is told; the first one's checkpoint is copied, and neither makes a step."""
    quiet = MetadataService()
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    first, other = (
        start(
            tmp_path / f"rank{rank}",
            inputs,
            tmp_path / f"copies{rank}",
            asked,
            heeds=rank == 1,
            env={**world, "RANK": str(rank), "NODE_RANK": str(rank)},
            **TOGETHER,
            gradient_accumulation_steps=2,
        )
        for rank, asked in enumerate((quiet, service))
    )
    announce_in_step_8(service, tmp_path / "rank1", other)
    wait_until(lambda: copied(tmp_path / "copies0"), first)
    time.sleep(1.5)
    (step,) = copied(tmp_path / "copies0")
    assert step > SLOW_STEP
    assert max(*steps_of(tmp_path / "rank0"), *steps_of(tmp_path / "rank1")) <= step
    service.withdraw()
    assert [first.wait(60), other.wait(60)] == [0, 0]
    assert metrics_of(tmp_path / "rank0")["steps"] > step
    assert copied(tmp_path / "copies1") == []
    quiet.close()


@pytest.mark.slow
def test_processes_of_one_machine_wait_too(inputs, service, tmp_path: Path) -> None:
    service.announce()
    process = start(tmp_path, inputs, tmp_path / "copies", service, **TOGETHER, processes=2)
    wait_until(lambda: copied(tmp_path / "copies"), process)
    time.sleep(1.5)
    (step,) = copied(tmp_path / "copies")
    assert max(steps_of(tmp_path), default=0) <= step
    service.withdraw()
    assert process.wait(60) == 0
    assert metrics_of(tmp_path)["steps"] > step
