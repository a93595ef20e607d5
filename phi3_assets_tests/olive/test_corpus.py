"""The order of training rows, and the corpus as a data component of Olive."""

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.models import environment
from phi3_assets.olive import corpus

environment.prepare()


def order(**changes: object) -> corpus.CorpusOrder:
    fields = {"num_train_epochs": 2.0, "max_steps": -1, "step_rows": 4, "group_by_length": True, "data_seed": 42}
    return corpus.CorpusOrder(**{**fields, **changes})  # type: ignore[arg-type]


LENGTHS = [10 + (7 * row) % 50 for row in range(50)]


def test_every_row_comes_once_per_epoch() -> None:
    for grouped in (True, False):
        found = order(group_by_length=grouped).indices(LENGTHS)
        assert sorted(found) == sorted([*range(50), *range(50)])


def test_part_of_an_epoch_repeats_nothing() -> None:
    found = order(num_train_epochs=0.5).indices(LENGTHS)
    assert len(found) == len(set(found)) == 25


def test_max_steps_wins_and_may_exceed_the_rows() -> None:
    wanted = order(max_steps=30)
    assert wanted.steps(rows=50) == 30
    assert len(wanted.indices(LENGTHS)) == 120


def test_grouping_saves_padding_and_puts_the_longest_first() -> None:
    def padding(found: list[int]) -> int:
        steps = [[LENGTHS[row] for row in found[at : at + 4]] for at in range(0, len(found), 4)]
        return sum(max(step) * len(step) - sum(step) for step in steps)

    grouped, shuffled = order().indices(LENGTHS), order(group_by_length=False).indices(LENGTHS)
    assert padding(grouped) < 0.1 * padding(shuffled)
    assert max(LENGTHS) in [LENGTHS[row] for row in grouped[:4]]


def test_seed_decides_the_order() -> None:
    assert order().indices(LENGTHS) == order().indices(LENGTHS) != order(data_seed=1).indices(LENGTHS)


def test_olive_sees_the_rows_and_their_masks(tmp_path: Path) -> None:
    """Through Olive's own reader of a data config, as `olive run` does."""
    from olive.data.config import DataConfig
    from olive.passes.pytorch.train_utils import get_training_dataset

    write(tmp_path / "train.parquet", [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, 5])])
    corpus.register()
    config = DataConfig(**corpus.data_config(tmp_path / "train.parquet", order(num_train_epochs=1.0)))
    rows = get_training_dataset(config)
    found = sorted((row["input_ids"].tolist(), row["labels"].tolist()) for row in rows)
    assert found == [([1, 2, 3], [-100, 2, 3]), ([4, 5], [-100, 5])]


def test_a_corpus_reaches_the_pass_at_ten_thousand_rows_a_second(tmp_path: Path) -> None:
    """Olive's own path gives 1.3 thousand."""
    write(tmp_path / "train.parquet", [([7] * 60, [-100] * 40 + [7] * 20)] * 20_000)
    started = time.perf_counter()
    rows = corpus.read_corpus(tmp_path / "train.parquet", order(num_train_epochs=1.0))
    for number in range(len(rows)):
        rows[number]
    assert len(rows) / (time.perf_counter() - started) > 10_000


@pytest.mark.parametrize("labels", [[-100, -100, -100], [1, -100, -100]])
def test_row_whose_only_label_is_never_predicted_is_refused(labels: list[int], tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [([1, 2, 3], [-100, 2, 3]), ([1, 2, 3], labels)])
    with pytest.raises(corpus.UserError, match=r"Row 1 .*no label to learn"):
        corpus.read_corpus(tmp_path / "train.parquet", order())


def write(path: Path, rows: list[tuple[list[int], list[int]]]) -> None:
    ids = pa.list_(pa.int32())
    columns = {"input_ids": pa.array([row[0] for row in rows], ids), "labels": pa.array([row[1] for row in rows], ids)}
    pq.write_table(pa.table(columns), path)
