"""How a training is run is not what is trained: the advice against full memory keeps identity and checkpoint.

Batches cut otherwise add up in another order, and dropout draws other masks, so the bytes differ; each is one of
several equally right results of what was asked for.
"""

from pathlib import Path
from typing import Any

import pytest

from phi3_assets.core.step import StepCall
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets_tests.steps.alone import assert_same
from phi3_assets_tests.steps.conftest import Made, RunStep, tiny_recipe
from phi3_assets_tests.steps.killing import SEVERAL_EPOCHS, train

WEIGHTS = "adapter_model.safetensors"
THREE_EPOCHS = {"lora_dropout": 0.0, "num_train_epochs": 3.0}
WHOLE = {"per_device_train_batch_size": 8}
HALVES = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
CUTS: list[dict[str, Any]] = [
    HALVES,
    {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "processes": 2},
    {**WHOLE, "gradient_checkpointing": True},
    {**WHOLE, "logging_steps": 3},
]


def identity(**overrides: Any) -> str:
    recipe = tiny_recipe(**overrides)
    settings = LORA_ADAPTER.settings(recipe)
    return StepCall(LORA_ADAPTER.name, "1", LORA_ADAPTER.params(recipe), {}, {}, settings).identity


@pytest.mark.parametrize("cut", CUTS)
def test_how_a_step_is_cut_is_in_no_identity(cut: dict[str, Any]) -> None:
    """Who followed "the same result" after an out-of-memory error began again from the first step."""
    assert identity(**cut) == identity(**WHOLE)
    assert identity(**{**cut, "per_device_train_batch_size": 16}) != identity(**WHOLE)


@pytest.fixture(scope="module")
def in_whole(inputs: dict[str, Path], run_step: RunStep) -> Made:
    return run_step(LORA_ADAPTER, inputs, **THREE_EPOCHS, **WHOLE)


@pytest.mark.parametrize("cut", [HALVES, {**WHOLE, "gradient_checkpointing": True}])
def test_cuts_differ_by_rounding_alone(
    cut: dict[str, Any], inputs: dict[str, Path], in_whole: Made, run_step: RunStep
) -> None:
    """Two processes against one: test_together.py."""
    import torch
    from safetensors.torch import load_file

    other = run_step(LORA_ADAPTER, inputs, **THREE_EPOCHS, **cut)
    expected = load_file(in_whole.path / WEIGHTS)
    for name, tensor in load_file(other.path / WEIGHTS).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)
    assert other.metrics["steps"] == in_whole.metrics["steps"]


def test_logging_changes_no_byte(inputs: dict[str, Path], run_step: RunStep) -> None:
    """The loss curve of the artefact was spaced by logging_steps, so each spacing was another artefact."""
    often, seldom = (run_step(LORA_ADAPTER, inputs, logging_steps=steps, num_train_epochs=4.0) for steps in (1, 3))
    assert_same(often.path, seldom.path)
    assert often.metrics["final_loss"] == seldom.metrics["final_loss"]
    assert len(seldom.notes) == 2 < len(often.notes)


def test_checkpoint_is_resumed_with_smaller_batches(inputs: dict[str, Path], run_step: RunStep, tmp_path: Path) -> None:
    """Memory ran out in step 5 of 9: the batch is halved, and the training goes on where it was."""
    import torch
    from safetensors.torch import load_file

    fields = {**SEVERAL_EPOCHS, "lora_dropout": 0.0, "logging_steps": 1}
    whole = run_step(LORA_ADAPTER, inputs, **{**fields, **WHOLE})
    assert train(inputs, tmp_path, kill_at=5, **{**fields, **WHOLE}) == 9
    cut = {**fields, **HALVES, "gradient_checkpointing": True}
    resumed = run_step(LORA_ADAPTER, inputs, work=tmp_path / "work", **cut)
    assert resumed.metrics["resumed_from_step"] == 4
    assert resumed.metrics["steps"] == whole.metrics["steps"] == 9
    expected = load_file(whole.path / WEIGHTS)
    for name, tensor in load_file(resumed.path / WEIGHTS).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)
