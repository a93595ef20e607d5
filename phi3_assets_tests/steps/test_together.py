"""Two processes that train one adapter: the result of one process with twice the accumulation, and no orphans."""

import os
import signal
import time
from math import ceil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.olive.corpus import CorpusOrder
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training.together import _exited
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

    monkeypatch.setenv("TEST_MARKER", str(tmp_path))
    arguments = {**FIELDS, **EVALUATING, "processes": 2}
    assert train(inputs, tmp_path, kill_at=4, number=signal.SIGKILL, **arguments) == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while (left := started_by(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [process.pid for process in left] in ([], [os.getpid()])
    assert train(inputs, tmp_path, **arguments) == 0
    metrics = metrics_of(tmp_path)
    assert metrics["resumed_from_step"] > 0

    one = run_step(LORA_ADAPTER, inputs, **FIELDS, **EVALUATING, gradient_accumulation_steps=2)
    assert metrics["steps"] == one.metrics["steps"] == 6
    assert metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-5)
    together = load_file(tmp_path / "output" / WEIGHTS)
    for name, tensor in load_file(one.path / WEIGHTS).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=2e-6)


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
    assert isinstance(_exited(killed, params), TransientError)
    assert isinstance(_exited(SimpleNamespace(signal_name="SIGSEGV"), params), RuntimeError)
