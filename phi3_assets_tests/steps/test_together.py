"""Two processes that train one adapter: the result of one process with twice the accumulation, and no orphans."""

import multiprocessing
import os
import signal
import threading
import time
from math import ceil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.olive.corpus import CorpusOrder
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training import together
from phi3_assets_tests.shared_server import shared_server
from phi3_assets_tests.steps.alone import metrics_of
from phi3_assets_tests.steps.conftest import RunStep
from phi3_assets_tests.steps.killing import train

WEIGHTS = "adapter_model.safetensors"
# Dropout would draw other masks in each process.
FIELDS = {"lora_dropout": 0.0, "per_device_train_batch_size": 2, "max_steps": 6, "logging_steps": 1}
EVALUATING = {"eval_share": 0.3, "eval_steps": 3}


def started_by(marker: Path) -> list[psutil.Process]:
    """Processes with this marker in the environment they were born with."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("TEST_MARKER") == str(marker) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_two_processes_train_as_one_and_leave_no_orphan(inputs, run_step: RunStep, tmp_path: Path, monkeypatch) -> None:
    """The supervisor is killed with SIGKILL while step 4 is told; run again, it goes on from the checkpoint."""
    import torch
    from safetensors.torch import load_file

    shared_server(1)  # born without the marker
    monkeypatch.setenv("TEST_MARKER", str(tmp_path))
    arguments = {**FIELDS, **EVALUATING, "processes": 2}
    assert train(inputs, tmp_path, kill_at=4, number=signal.SIGKILL, **arguments) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while (left := started_by(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left
    assert train(inputs, tmp_path, **arguments) == 0
    metrics = metrics_of(tmp_path)
    assert metrics["resumed_from_step"] > 0

    one = run_step(LORA_ADAPTER, inputs, **FIELDS, **EVALUATING, gradient_accumulation_steps=2)
    assert metrics["steps"] == one.metrics["steps"] == 6
    assert metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-5)
    together = load_file(tmp_path / "output" / WEIGHTS)
    for name, tensor in load_file(one.path / WEIGHTS).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=2e-6)


def supervise(root: Path) -> None:
    """Start a process that tells of a checkpoint, and be killed before it is answered."""
    spawn = multiprocessing.get_context("spawn")
    events = spawn.Event(), spawn.Event()
    spawn.Process(target=tell_of_a_checkpoint, args=(root, *events)).start()
    wait_for(root / "told")
    os.kill(os.getpid(), signal.SIGKILL)


def tell_of_a_checkpoint(root: Path, announced: Any, secured: Any) -> None:
    """What the first process does once it has written one."""
    together._Notice(announced, secured, tell_supervisor=(root / "told").touch).checkpoint_written()
    (root / "went on").touch()


def test_nobody_waits_for_a_supervisor_that_is_gone(tmp_path: Path) -> None:
    """It waited a minute, with the memory of a whole training."""
    supervisor = multiprocessing.get_context("spawn").Process(target=supervise, args=(tmp_path,))
    supervisor.start()
    supervisor.join(60)
    assert supervisor.exitcode == -signal.SIGKILL
    wait_for(tmp_path / "went on", seconds=10)


def wait_for_ever(root: Path, lock: Any) -> None:
    """As one that waits for a lock whose holder was killed."""
    together._ALONE_S = 1.0
    threading.Thread(target=together._end_after_supervisor, daemon=True).start()
    (root / "told").write_text(str(os.getpid()))
    lock.acquire()


def supervise_with_a_lock(root: Path) -> None:
    """Be killed while holding a lock."""
    spawn = multiprocessing.get_context("spawn")
    lock = spawn.Lock()
    lock.acquire()
    spawn.Process(target=wait_for_ever, args=(root, lock)).start()
    wait_for(root / "told")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lock_that_died_with_the_supervisor_keeps_nobody(tmp_path: Path) -> None:
    supervisor = multiprocessing.get_context("spawn").Process(target=supervise_with_a_lock, args=(tmp_path,))
    supervisor.start()
    supervisor.join(60)
    waiting = int((tmp_path / "told").read_text())
    deadline = time.monotonic() + 10
    while psutil.pid_exists(waiting) and psutil.Process(waiting).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def wait_for(path: Path, seconds: float = 60.0) -> None:
    """Until this file is there."""
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline, path.name
        time.sleep(0.05)


@pytest.mark.slow
def test_error_of_a_process_is_the_users(inputs: dict[str, Path], run_step: RunStep) -> None:
    with pytest.raises(UserError, match=r"loss is .* at step .*Lower learning_rate"):
        run_step(LORA_ADAPTER, inputs, processes=2, learning_rate=1e20, max_grad_norm=1e20, num_train_epochs=20.0)


def test_every_process_gets_the_same_number_of_batches() -> None:
    """One that had a batch less would leave the others waiting for ever."""
    order = CorpusOrder(1.0, -1, step_rows=8, group_by_length=True, data_seed=0, whole_rows=4)
    assert len(order.indices(list(range(1, 19)))) == 20
    assert len(order.indices([5, 6, 7])) == 4


def test_order_is_that_of_one_process() -> None:
    """Rows that filled no batch of each process were left out, and with them the whole order was another."""
    one, together = (
        CorpusOrder(2.0, -1, step_rows=8, group_by_length=True, data_seed=0, whole_rows=rows) for rows in (1, 4)
    )
    lengths = list(range(1, 20))
    assert together.indices(lengths)[: 2 * len(lengths)] == one.indices(lengths)
    assert ceil(len(together.indices(lengths)) / 8) == one.steps(len(lengths))


def test_one_that_is_killed_for_want_of_memory_may_succeed_later():
    """The kernel chose one of several that train together for a neighbour's sake, and the run was given up."""
    params = LORA_ADAPTER.params(load_recipe("tiny-test"))
    killed = SimpleNamespace(signal_name="SIGKILL", error_index=1)
    assert isinstance(together._exited(killed, params), TransientError)
    assert isinstance(together._exited(SimpleNamespace(signal_name="SIGSEGV"), params), RuntimeError)
