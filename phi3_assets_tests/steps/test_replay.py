"""Replay: what the base model writes itself is learnt along, is the same again, and is in nothing but the training."""

import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from phi3_assets.steps import LORA_ADAPTER
from phi3_assets.training.replay import MOST_TEXTS, TOKENS, texts_for, write_texts
from phi3_assets_tests.steps.alone import assert_same, log_of
from phi3_assets_tests.steps.conftest import Made, RunStep
from phi3_assets_tests.steps.killing import train


def test_texts_are_rows_to_learn(tiny_base: Made, tmp_path: Path) -> None:
    write_texts(tiny_base.path, 70, 0, "float32", tmp_path / "texts.parquet")
    rows = pq.read_table(tmp_path / "texts.parquet").to_pylist()
    special = set(AutoTokenizer.from_pretrained(tiny_base.path).all_special_ids)
    assert len(rows) == 70
    for row in rows:
        assert len(row["input_ids"]) == len(row["labels"]) == TOKENS
        assert row["labels"][1:] == row["input_ids"][1:]
        assert not special & set(row["input_ids"])
    assert len({tuple(row["input_ids"]) for row in rows}) == 70


def test_the_seed_decides_what_is_written(tiny_base: Made, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write_texts(tiny_base.path, 5, seed, "float32", tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "same").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


def test_a_share_of_the_rows_and_a_bound() -> None:
    assert [texts_for(rows, 0.1) for rows in (1, 10, 326)] == [1, 1, 33]
    assert texts_for(326, 0.0) == 0
    assert texts_for(10**7, 0.1) == MOST_TEXTS


def test_they_are_learnt_along(inputs: dict[str, Path], run_step: RunStep, tiny_adapter: Made) -> None:
    made = [run_step(LORA_ADAPTER, inputs, replay_share=0.5, max_steps=3) for _ in range(2)]
    without = run_step(LORA_ADAPTER, inputs, max_steps=3)
    assert made[0].metrics["replay_texts"] == 9
    assert without.metrics["replay_texts"] == tiny_adapter.metrics["replay_texts"] == 0
    assert_same(made[0].path, made[1].path)
    weights = "adapter_model.safetensors"
    assert (made[0].path / weights).read_bytes() != (without.path / weights).read_bytes()


@pytest.mark.slow
def test_a_killed_training_with_replay_ends_as_any_other(inputs: dict[str, Path], tmp_path: Path) -> None:
    fields = {"replay_share": 0.5, "max_steps": 8}
    assert train(inputs, tmp_path / "whole", **fields) == 0
    assert train(inputs, tmp_path / "killed", kill_at=4, number=signal.SIGKILL, **fields) == -signal.SIGKILL
    assert train(inputs, tmp_path / "killed", **fields) == 0
    assert "Resuming from the checkpoint" in log_of(tmp_path / "killed")
    assert_same(tmp_path / "whole" / "output", tmp_path / "killed" / "output")
