"""The tokenised corpus as a data component of Olive: rows with label masks, in the order they are trained on.

Olive's own text components learn the whole text, prompt included, and hand it over row by row at about a thousand rows
a second. This one hands over the rows of formatted_corpus as they are, one slice of memory each.

The order is made here, and the trainer reads it sequentially. The trainer's own length-grouping sampler draws from the
global random state, so it would ignore `data_seed` and, after a restart in a later epoch, give another order than an
uninterrupted run.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError

TRAIN_FILE = "train.parquet"
COMPONENT = "phi3_assets_corpus"
CALIBRATION = "phi3_assets_calibration"
# Rows are joined to sequences of this many tokens: a few long batches calibrate as well as many short ones, sooner.
_CALIBRATION_SEQUENCE = 512
IGNORED_LABEL = -100
_COLUMNS = ("input_ids", "labels")
# Rows are sorted by length inside blocks of this many batches, so that the order still differs from epoch to epoch.
_BATCHES_PER_BLOCK = 50


@dataclass(frozen=True)
class CorpusOrder:
    """Which rows are trained on, and in what order.

    Attributes:
        num_train_epochs: Passes over the rows; the last one may be cut short.
        max_steps: Optimiser steps; -1: as many as the epochs need.
        step_rows: Rows of one optimiser step, over all devices and accumulated batches.
        group_by_length: Put rows of like length into one step.
        data_seed: Seed of the order.
        whole_rows: Rows come again at the very end until their number is a multiple of this, as processes that train
            together all need the same number of batches; the order before that is the same with any value.
    """

    num_train_epochs: float
    max_steps: int
    step_rows: int
    group_by_length: bool
    data_seed: int
    whole_rows: int = 1

    def steps(self, rows: int) -> int:
        """Optimiser steps for a corpus of `rows` rows."""
        return self.max_steps if self.max_steps > 0 else max(1, ceil(rows * self.num_train_epochs / self.step_rows))

    def indices(self, lengths: Sequence[int]) -> list[int]:
        """Row numbers in training order; `lengths` are the rows' token counts.

        Every row comes once before any comes again. The step with the longest row is moved to the front: if memory
        is short, it is so at once and not after an hour.
        """
        rows = len(lengths)
        total = self.max_steps * self.step_rows if self.max_steps > 0 else max(1, round(rows * self.num_train_epochs))
        shuffle = random.Random(self.data_seed).shuffle  # noqa: S311 (an order, not a secret)
        order: list[int] = []
        while len(order) < total:
            epoch = list(range(rows))
            shuffle(epoch)
            order += epoch
        order = order[:total]
        if self.group_by_length:
            order = self._grouped(order, lengths, shuffle)
        return order + [order[at % total] for at in range(-total % self.whole_rows)]

    def _grouped(self, order: list[int], lengths: Sequence[int], shuffle: Callable[[list[Any]], None]) -> list[int]:
        """Put rows of like length into one step, block by block."""
        block_rows = self.step_rows * _BATCHES_PER_BLOCK
        steps: list[list[int]] = []
        for start in range(0, len(order), block_rows):
            block = sorted(order[start : start + block_rows], key=lambda row: -lengths[row])
            cut = [block[at : at + self.step_rows] for at in range(0, len(block), self.step_rows)]
            short = [cut.pop()] if len(cut[-1]) < self.step_rows else []
            shuffle(cut)
            steps += cut + short
        full = [step for step in steps if len(step) == self.step_rows]
        if full:
            longest = max(full, key=lambda step: max(lengths[row] for row in step))
            steps.remove(longest)
            steps.insert(0, longest)
        return [row for step in steps for row in step]


class CorpusRows:
    """Rows of a tokenised corpus in training order, as a map-style dataset.

    A row is {"input_ids": int64 tensor (tokens,), "labels": int64 tensor (tokens,)}; label -100: not learnt.
    """

    def __init__(self, input_ids: Any, labels: Any, offsets: list[int], order: list[int]) -> None:
        """Take flat tensors; row r is [offsets[r], offsets[r + 1]).

        Attributes:
            order: Number of the row at each place.
        """
        self._input_ids = input_ids
        self._labels = labels
        self._offsets = offsets
        self.order = order
        self.rows = len(offsets) - 1
        self.tokens = len(input_ids)
        self.supervised_tokens = int((labels != IGNORED_LABEL).sum())

    def __len__(self) -> int:
        return len(self.order)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row, in training order."""
        return [self.length(row) for row in self.order]

    def length(self, row: int) -> int:
        """Tokens of a row, by its number."""
        return self._offsets[row + 1] - self._offsets[row]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.row(self.order[index])

    def row(self, row: int) -> dict[str, Any]:
        """A row by its number."""
        span = slice(self._offsets[row], self._offsets[row + 1])
        return {"input_ids": self._input_ids[span], "labels": self._labels[span]}


def read_corpus(path: Path, order: CorpusOrder, eval_share: float = 0.0, replay_file: Path | None = None) -> CorpusRows:
    """Read train.parquet.

    Args:
        path: Parquet file with list columns `input_ids` and `labels` of equal lengths, and `group`, a hash.
        order: The order of the rows.
        eval_share: Share of groups that is left out; `read_eval_rows` reads it.
        replay_file: More rows to learn, in a file with `input_ids` and `labels`.

    Raises:
        UserError: No rows, or a row without a label to learn.
    """
    table = _read(path, eval_share, _COLUMNS, held_out=False)
    if not table.num_rows:
        raise UserError(
            "The corpus has no training rows. See formatted_corpus for how many were read and why rows "
            "were quarantined; a larger max_seq_len, a lower eval_share or more data brings rows back."
        )
    if replay_file is not None:
        table = _with_rows(table.select(_COLUMNS), replay_file)
    return _corpus_rows(table, path, order.indices)


def read_eval_rows(path: Path, eval_share: float) -> CorpusRows:
    """Read the rows that `read_corpus` leaves out, the shortest first.

    Raises:
        UserError: There are none.
    """
    table = read_held_out(path, eval_share)
    if not table.num_rows:
        raise UserError(
            f"eval_share {eval_share} takes none of the training rows, which are chosen by a hash of their group. "
            "Raise it, add data, or set it to 0."
        )
    return _corpus_rows(table, path, lambda lengths: sorted(range(len(lengths)), key=lambda row: lengths[row]))


def read_held_out(path: Path, eval_share: float, columns: Sequence[str] = _COLUMNS) -> Any:
    """Columns of the rows that `read_corpus` leaves out, as an Arrow table, in the order of the file."""
    return _read(path, eval_share, columns, held_out=True)


def _read(path: Path, eval_share: float, columns: Sequence[str], *, held_out: bool) -> Any:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not eval_share and not held_out:
        return pq.read_table(path, columns=list(columns))
    table = pq.read_table(path, columns=list(dict.fromkeys([*columns, "group"])))
    below = table["group"].to_numpy() < np.uint64(int(eval_share * 2**64))
    return table.filter(pa.array(below == held_out))


def _with_rows(table: Any, file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    return pa.concat_tables([table, pq.read_table(file, columns=table.column_names).cast(table.schema)])


def _corpus_rows(table: Any, path: Path, order: Callable[[list[int]], list[int]]) -> CorpusRows:
    import numpy as np
    import pyarrow.compute as pc
    import torch

    lengths = pc.list_value_length(table["input_ids"]).to_numpy()
    input_ids, labels = (
        torch.from_numpy(pc.list_flatten(table[name]).to_numpy().astype(np.int64)) for name in ("input_ids", "labels")
    )
    offsets = [0, *np.cumsum(lengths).tolist()]
    learnt = torch.zeros(len(labels) + 1, dtype=torch.int64)
    # The first token of a row is never predicted, so a label there teaches nothing.
    predicted = labels != IGNORED_LABEL
    predicted[offsets[:-1]] = False
    torch.cumsum(predicted, 0, out=learnt[1:])
    starts = learnt[offsets]
    if bool((empty := starts[1:] == starts[:-1]).any()):
        row = int(empty.nonzero()[0])
        raise UserError(f"Row {row} of {path.name} has no label to learn; the corpus was not made by this package.")
    return CorpusRows(input_ids, labels, offsets, order(lengths.tolist()))


def register() -> None:
    """Make the corpus known to Olive as dataset components, to train on and to calibrate on; safe to call again."""
    from olive.data.registry import Registry

    @Registry.register_dataset(COMPONENT)  # type: ignore[untyped-decorator]
    def load(path: str, order: dict[str, Any], eval_share: float, replay_file: str | None) -> CorpusRows:
        return read_corpus(Path(path), CorpusOrder(**order), eval_share, Path(replay_file) if replay_file else None)

    @Registry.register_dataset(CALIBRATION)  # type: ignore[untyped-decorator]
    def calibrate(
        path: str, tokens: int, eval_share: float, replay_file: str | None
    ) -> list[tuple[dict[str, Any], int]]:
        return read_calibration(Path(path), tokens, eval_share, Path(replay_file) if replay_file else None)


def data_config(
    path: Path, order: CorpusOrder, eval_share: float = 0.0, replay_file: Path | None = None
) -> dict[str, Any]:
    """Olive data config of what `read_corpus` reads; needs `register()` first."""
    return {
        "name": "train",
        "type": "DataContainer",
        "load_dataset_config": {
            "type": COMPONENT,
            "params": {
                "path": str(path),
                "order": asdict(order),
                "eval_share": eval_share,
                "replay_file": str(replay_file) if replay_file else None,
            },
        },
        "pre_process_data_config": {"type": "skip_pre_process"},
    }


def read_calibration(
    path: Path, tokens: int, eval_share: float = 0.0, replay_file: Path | None = None
) -> list[tuple[dict[str, Any], int]]:
    """The corpus as sequences for calibration, prompts and answers alike, rows in a fixed mixed order.

    Args:
        path: As for `read_corpus`.
        tokens: At most so many in all.
        eval_share: As for `read_corpus`.
        replay_file: As for `read_corpus`.

    Returns:
        ({"input_ids", "attention_mask"}, 0) per sequence, as Olive's dataloader takes them; int64 (tokens,).
    """
    import torch

    order = CorpusOrder(1.0, -1, step_rows=1, group_by_length=False, data_seed=0)
    rows = read_corpus(path, order, eval_share, replay_file)
    joined = torch.cat([rows[number]["input_ids"] for number in range(len(rows))])[:tokens]
    # All of one length, because Olive's dataloader stacks them; a short corpus gives one short sequence.
    length = min(_CALIBRATION_SEQUENCE, len(joined))
    sequences = joined[: len(joined) // length * length].reshape(-1, length)
    return [({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 0) for ids in sequences]


def calibration_config(path: Path, tokens: int, eval_share: float, replay_file: Path | None = None) -> dict[str, Any]:
    """Olive data config of what `read_calibration` reads; needs `register()` first."""
    return {
        "name": "calibration",
        "type": "DataContainer",
        "load_dataset_config": {
            "type": CALIBRATION,
            "params": {
                "path": str(path),
                "tokens": tokens,
                "eval_share": eval_share,
                "replay_file": str(replay_file) if replay_file else None,
            },
        },
        "pre_process_data_config": {"type": "skip_pre_process"},
        "dataloader_config": {"type": "default_dataloader", "params": {"batch_size": 1}},
    }
