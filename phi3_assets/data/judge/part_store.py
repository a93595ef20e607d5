"""How a part lies on disk: blocks of records, and arrays with one value per record."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import BANDS, as_hashes, digests, halves, normalise, sketch
from phi3_assets.data.judge.split import hash_split
from phi3_assets.data.records import BLOCK_ROWS, SCHEMA, block_path, messages_column, open_block

_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 120
ARRAYS: dict[str, Any] = {
    "id": np.uint64,
    "group": np.uint64,
    "answer": np.uint64,
    "row": np.int64,
    "side": np.uint8,
    "sketch": np.uint8,
}
"""The arrays of a part beside its MinHash bands, and their types; side is a position in `records.SPLITS`."""
BAND_ARRAYS = [f"band{i}" for i in range(BANDS)]
REPEATABLE = ["id", "group", *BAND_ARRAYS]
"""The arrays of which a part also holds the `halves`: what is looked up is which of their values repeat."""
LAYOUT = 2
"""Raised when parts lie otherwise on disk, so that those in caches are made anew."""
NO_ANSWER = 0
"""In the array `answer`, of a record that is not one question and one answer."""


@dataclass(frozen=True)
class PartSettings:
    """The recipe fields that a part depends on; see the recipe for what they mean."""

    question_column: str
    answer_column: str
    dataset_shape: str
    group_column: str
    test_share: float
    personal_data: str
    secrets: str


@dataclass
class FileReport:
    """What the report says of the file; grows while it is read."""

    rows_read: int = 0
    rows_kept: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    personal_data: Counter[str] = field(default_factory=Counter)  # findings by kind
    secrets: Counter[str] = field(default_factory=Counter)
    rows_with_personal_data: int = 0
    rows_with_secrets: int = 0
    columns: list[str] = field(default_factory=list)  # of a file without a known shape
    preview: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class RowBatch:
    """Rows that have become messages, flat."""

    numbers: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


class PartStore:
    """Writes blocks and arrays as the batches come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._block: pq.ParquetWriter | None = None
        self._arrays: dict[str, IO[bytes]] = {}
        self.rows = 0

    def __enter__(self) -> "PartStore":
        self._arrays = {name: (self._folder / f"{name}.bin").open("wb") for name in (*ARRAYS, *BAND_ARRAYS)}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for file in self._arrays.values():
            file.close()
        if self._block is not None:
            self._block.close()
        if error is None:
            for name in REPEATABLE:
                halves(np.fromfile(self._folder / f"{name}.bin", np.uint64)).tofile(self._folder / f"{name}.halves")

    def add(
        self,
        file: str,
        batch: RowBatch,
        turns: NDArray[np.int64],
        texts: pa.Array,
        settings: PartSettings,
        facts: FileReport,
    ) -> None:
        """Store the records of a batch: `turns` messages each, their contents in `texts` end to end."""
        rows = len(turns)
        ends = np.cumsum(turns)
        first_roles = np.array(batch.roles)[ends - turns]
        firsts = normalise(texts.take(pa.array(ends - turns + (first_roles == "system"))))
        simple = (turns == 2) & (first_roles == "user")
        questions = firsts if simple.all() else _questions(texts, turns, ends)
        answers = normalise(texts.take(pa.array(ends - 1)))
        ids = digests(_identifying_texts(batch.roles, texts.to_pylist(), turns.tolist()))
        if settings.group_column:
            groups = digests(f"{settings.group_column}\x1f{value}" for value in batch.groups)
        else:
            groups = digests(firsts.to_pylist())
        group_hashes = as_hashes(groups)
        # A passage asks nothing, so nothing can be tested with it.
        split = np.where(first_roles == "text", "train", hash_split(group_hashes, settings.test_share))
        answer_hashes = as_hashes(digests(answers.to_pylist())) | np.uint64(1)
        sketches, bands = sketch(questions, answers)
        arrays: dict[str, NDArray[Any]] = {
            "id": as_hashes(ids),
            "group": group_hashes,
            "answer": np.where(simple, answer_hashes, NO_ANSWER).astype(np.uint64),
            "row": np.array(batch.numbers, np.int64),
            "side": (split == "test").astype(np.uint8),
            "sketch": sketches,
            **dict(zip(BAND_ARRAYS, bands, strict=True)),
        }
        for name, values in arrays.items():
            self._arrays[name].write(np.ascontiguousarray(values).tobytes())
        columns = [
            pa.array([digest.hex()[:32] for digest in ids]),
            messages_column(batch.roles, texts, turns),
            pa.array([file] * rows),
            pa.array(batch.numbers, pa.int64()),
            pa.array([digest.hex()[:32] for digest in groups]),
            pa.array(split.tolist()),
        ]
        table = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        if len(facts.preview) < _PREVIEW_ROWS:
            _add_previews(table, facts.preview)
        self._write(table)

    def _write(self, table: pa.RecordBatch) -> None:
        if self._block is None or self.rows % BLOCK_ROWS == 0:
            if self._block is not None:
                self._block.close()
            self._block = open_block(block_path(self._folder, self.rows // BLOCK_ROWS))
        room = BLOCK_ROWS - self.rows % BLOCK_ROWS
        head = table.slice(0, room)
        self._block.write_batch(head)
        self.rows += head.num_rows
        if table.num_rows > room:
            self._write(table.slice(room))


def _questions(texts: pa.Array, turns: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.Array:
    """All that comes before the last answer of each row, normalised."""
    contents = texts.to_pylist()
    joined = ["\n".join(contents[end - count : end - 1]) for count, end in zip(turns, ends, strict=True)]
    return normalise(pa.array(joined, pa.string()))


def _identifying_texts(roles: list[str], contents: list[str], turns: list[int]) -> Iterator[str]:
    """A text for each row that no other conversation has: no content holds the control characters between."""
    end = 0
    for count in turns:
        start, end = end, end + count
        yield "\x1e".join([f"{roles[i]}\x1f{contents[i]}" for i in range(start, end)])


def _add_previews(table: pa.RecordBatch, previews: list[dict[str, Any]]) -> None:
    """The first rows for the table in the UI, shortened."""
    for record in table.slice(0, _PREVIEW_ROWS - len(previews)).to_pylist():
        turns = record["messages"]
        question = " / ".join(turn["content"] for turn in turns[:-1] if turn["role"] == "user")
        previews.append(
            {
                "row": record["row"],
                "question": question[:_PREVIEW_CHARS],
                "answer": turns[-1]["content"][:_PREVIEW_CHARS],
                "split": record["split"],
            }
        )
