"""Held-out rows, evaluated while training: never learnt, whole groups, and the best adapter on them is the one kept."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.olive import corpus
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training.callback import evaluations_without_gain
from phi3_assets_tests.steps.alone import assert_same, metrics_of
from phi3_assets_tests.steps.conftest import RunStep
from phi3_assets_tests.steps.killing import SEVERAL_EPOCHS, train

WEIGHTS = "adapter_model.safetensors"
# Two of the six facts are held out: what four facts teach about them is soon exhausted, so the best evaluation is not
# the last one.
EVALUATING = {
    "eval_share": 0.45,
    "eval_steps": 3,
    "learning_rate": 0.04,
    "seed": 2,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
}


@pytest.fixture(scope="module")
def evaluated(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluated")
    assert train(inputs, root, **EVALUATING) == 0
    return root


def order() -> corpus.CorpusOrder:
    return corpus.CorpusOrder(1.0, -1, step_rows=4, group_by_length=True, data_seed=0)


def test_whole_groups_are_held_out(inputs: dict[str, Path]) -> None:
    path = inputs["formatted_corpus"] / "train.parquet"
    learnt, seen = corpus.read_corpus(path, order(), 0.45), corpus.read_eval_rows(path, 0.45)
    rows = {tuple(row["input_ids"]): row["group"] for row in pq.read_table(path).to_pylist()}
    groups = [
        {rows[tuple(part[number]["input_ids"].tolist())] for number in range(len(part))} for part in (learnt, seen)
    ]
    assert (learnt.rows, seen.rows) == (12, 6)
    assert groups[0].isdisjoint(groups[1])
    assert seen.lengths == sorted(seen.lengths)


def test_share_without_a_row_is_refused(inputs: dict[str, Path], run_step: RunStep) -> None:
    with pytest.raises(UserError, match=r"eval_share 0.0001 takes none of the training rows.*Raise it"):
        run_step(LORA_ADAPTER, inputs, eval_share=0.0001)


def test_patience_without_rows_is_refused() -> None:
    with pytest.raises(UserError, match="early_stopping_patience: needs held-out rows, so set eval_share"):
        load_recipe("tiny-test", {"early_stopping_patience": 2})


def test_best_adapter_is_kept(inputs: dict[str, Path], evaluated: Path) -> None:
    """The loss that is kept is the adapter's own, computed here by transformers one row at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    metrics = metrics_of(evaluated)
    curve = json.loads((evaluated / "output" / "history.json").read_text())
    evaluations = {point["step"]: point["eval_loss"] for point in curve if point["eval_loss"] is not None}
    assert list(evaluations) == [3, 6, 9, 12]
    assert metrics["best_step"] == min(evaluations, key=lambda step: evaluations[step]) < 12
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(inputs["base_model"]), evaluated / "output")
    seen = corpus.read_eval_rows(inputs["formatted_corpus"] / "train.parquet", 0.45)
    total, tokens = 0.0, 0
    with torch.no_grad():
        for number in range(len(seen)):
            ids, labels = seen[number]["input_ids"][None], seen[number]["labels"][None]
            learnt = int((labels != -100).sum())
            total += float(model(input_ids=ids, labels=labels).loss) * learnt
            tokens += learnt
    assert metrics["eval_loss"] == pytest.approx(total / tokens, abs=1e-5)


def test_evaluating_changes_nothing_that_is_learnt(inputs: dict[str, Path], run_step: RunStep) -> None:
    """A training that evaluates once, at the end, goes down the same curve to the last bit."""
    curves = []
    for eval_steps in (3, 1000):
        made = run_step(LORA_ADAPTER, inputs, **{**SEVERAL_EPOCHS, **EVALUATING, "eval_steps": eval_steps})
        curves.append(json.loads((made.path / "history.json").read_text()))
        last = curves[-1][-1].pop("eval_loss")
        assert last == curves[0][-1].get("eval_loss", last)
    assert [point["loss"] for point in curves[0]] == [point["loss"] for point in curves[1]]
    assert made.metrics["best_step"] == 12


def test_killed_between_evaluations_ends_bit_equal(inputs, evaluated: Path, tmp_path: Path) -> None:
    """After the best evaluation, which is resumed with the checkpoint."""
    assert train(inputs, tmp_path, kill_at=10, **EVALUATING) == 9
    assert train(inputs, tmp_path, **EVALUATING) == 0
    assert_same(evaluated / "output", tmp_path / "output")
    assert metrics_of(tmp_path)["best_step"] == metrics_of(evaluated)["best_step"] < 10


def test_early_stopping_ends_and_stays_ended(inputs: dict[str, Path], run_step: RunStep, tmp_path: Path) -> None:
    """Also when the process is killed with the last checkpoint written: here the whole step is run again on it."""
    stopping = {**SEVERAL_EPOCHS, **EVALUATING, "eval_steps": 1, "early_stopping_patience": 2}
    first = run_step(LORA_ADAPTER, inputs, work=tmp_path, **stopping)
    assert first.metrics["steps"] == first.metrics["best_step"] + 2 < 12
    assert first.notes[-1] == "No better eval_loss in 2 evaluations: training ends early"
    again = run_step(LORA_ADAPTER, inputs, work=tmp_path, **stopping)
    assert_same(first.path, again.path)
    assert again.metrics["resumed_from_step"] == first.metrics["steps"]


@pytest.mark.parametrize(("losses", "expected"), [([], 0), ([3.0], 0), ([3, 2, 1], 0), ([1, 2, 3], 2), ([2, 1, 1], 1)])
def test_evaluations_without_gain(losses: list[float], expected: int) -> None:
    assert evaluations_without_gain(losses) == expected
