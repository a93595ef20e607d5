"""Processes that somebody else started train as one: on two nodes without a disk in common, killed, or failing."""

import shutil
import signal
from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training.ranks import Rank, cut_batch, given_rank, stand_alone
from phi3_assets_tests.steps.alone import assert_same, metrics_of
from phi3_assets_tests.steps.conftest import RunStep
from phi3_assets_tests.steps.ranks import Ranks

WEIGHTS = "adapter_model.safetensors"
# Dropout would draw other masks in each process.
FIELDS = {"lora_dropout": 0.0, "per_device_train_batch_size": 2, "max_steps": 6, "logging_steps": 1}
FOUR = {**FIELDS, "gradient_accumulation_steps": 4, "eval_share": 0.3, "eval_steps": 3}


def test_two_nodes_train_as_one_process(inputs, run_step: RunStep, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    ranks = Ranks(inputs, tmp_path, **FOUR)
    assert ranks.wait() == [0, 0, 0, 0], ranks.log(0)
    one = run_step(LORA_ADAPTER, inputs, **FOUR)
    metrics = metrics_of(ranks.folder(0))
    assert metrics["steps"] == one.metrics["steps"] == 6
    assert metrics["eval_loss"] == pytest.approx(one.metrics["eval_loss"], rel=1e-5)
    together = load_file(ranks.folder(0) / "output" / WEIGHTS)
    for name, tensor in load_file(one.path / WEIGHTS).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-4, atol=2e-6)
    assert "Training as rank 0 of 4 (node 0): 2 rows at once in each, 1 times for a step" in ranks.log(0)
    assert "rank 3 of 4 (node 1)" in ranks.log(3)
    for rank in (1, 2, 3):  # the first one publishes, and keeps the checkpoints
        assert metrics_of(ranks.folder(rank)) == {}
        assert list((ranks.folder(rank) / "output").iterdir()) == []
        assert list((ranks.folder(rank) / "work" / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_node_is_killed_and_both_go_on_bit_equal(inputs, tmp_path: Path) -> None:
    """With dropout, whose masks each rank draws from a random state that only the first one's checkpoint holds.

    The other node comes back with another disk and gets the checkpoint from the first one, and what it has there is not
    resumed from. Two ranks, because a sum of more depends on how gradients are put together, in the last digits.
    """
    fields = {**FOUR, "lora_dropout": 0.1}
    whole = Ranks(inputs, tmp_path / "whole", each=1, **fields)
    assert whole.wait() == [0, 0], whole.log(0)

    ranks = Ranks(inputs, tmp_path / "killed", each=1, kill=(1, 5, signal.SIGKILL), **fields)
    assert ranks.wait() == [1, -signal.SIGKILL]
    assert "TransientError: rank 0 of 2 (node 0) lost another" in ranks.log(0)
    shutil.rmtree(ranks.folder(1) / "work")
    (ranks.folder(1) / "work" / "checkpoints" / "checkpoint-9").mkdir(parents=True)

    again = Ranks(inputs, tmp_path / "killed", each=1, **fields)
    assert again.wait() == [0, 0], again.log(0)
    assert metrics_of(again.folder(0))["resumed_from_step"] in (3, 4)
    assert_same(whole.folder(0) / "output", again.folder(0) / "output")


def test_error_of_another_rank_is_told_by_the_first(inputs, tmp_path: Path) -> None:
    """Rank 1 alone has no rows to read; the other does not wait for it, and says what it said."""
    import pyarrow.parquet as pq

    corpus = shutil.copytree(inputs["formatted_corpus"], tmp_path / "corpus")
    pq.write_table(pq.read_table(corpus / "train.parquet").slice(0, 0), corpus / "train.parquet")
    ranks = Ranks(inputs, tmp_path, each=1, other_inputs={1: {**inputs, "formatted_corpus": corpus}}, **FOUR)
    assert ranks.wait() == [1, 1]
    assert "UserError: rank 1 of 2 (node 1): The corpus has no training rows" in ranks.log(0)
    assert "UserError: The corpus has no training rows" in ranks.log(1)


def test_rows_that_cannot_be_shared_are_refused_by_all(inputs, tmp_path: Path) -> None:
    ranks = Ranks(inputs, tmp_path, each=1, **{**FIELDS, "per_device_train_batch_size": 3})
    assert ranks.wait() == [1, 1]
    for rank in (0, 1):
        assert "UserError: An optimiser step has 3 rows" in ranks.log(rank)
        assert "so that they are a multiple of 2" in ranks.log(rank)


@pytest.mark.parametrize(
    ("size", "accumulation", "processes", "of", "cut"),
    [(8, 4, 1, 4, (8, 1)), (8, 1, 1, 4, (2, 1)), (8, 3, 1, 2, (6, 2)), (8, 1, 4, 2, (8, 2)), (1, 12, 1, 4, (1, 3))],
)
def test_a_step_has_the_same_rows_however_many_share_it(size, accumulation, processes, of, cut) -> None:
    settings = {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": accumulation,
        "processes": processes,
    }
    recipe = load_recipe("tiny-test", settings)
    made = cut_batch({"train_batch_rows": recipe.train_batch_rows, **settings, "seed": 7}, of)
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == cut
    assert made["processes"] == of
    recut = load_recipe("tiny-test", {name: made[name] for name in settings})
    assert recut.train_batch_rows == recipe.train_batch_rows
    assert made["seed"] == 7


def test_a_lone_worker_is_no_rank() -> None:
    """AzureML sets all these for a single process too."""
    lone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "10.0.0.4", "MASTER_PORT": "6105"}
    assert given_rank({}) is None
    assert given_rank(lone) is None
    left = dict(lone)
    stand_alone(left)
    assert left == {"MASTER_ADDR": "10.0.0.4", "MASTER_PORT": "6105"}
    given = {**lone, "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "NODE_RANK": "1"}
    assert given_rank(given) == Rank(number=3, of=4, local=1, node="1")
    with pytest.raises(UserError, match="MASTER_ADDR is not set"):
        given_rank({**given, "MASTER_ADDR": ""})
    with pytest.raises(UserError, match="LOCAL_RANK is None"):
        given_rank({name: value for name, value in given.items() if name != "LOCAL_RANK"})
