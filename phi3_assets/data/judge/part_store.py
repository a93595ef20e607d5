"""How a part lies on disk: blocks of records, and arrays with one value per record."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import BANDS, Hashes, as_hashes, digests, halves, normalise, sketch
from phi3_assets.data.judge.keys import (
    asked_questions,
    first_questions,
    identifying_texts,
    is_greeting,
    opening_questions,
)
from phi3_assets.data.judge.policies import Judged
from phi3_assets.data.judge.split import hash_split
from phi3_assets.data.judge.words import hashed
from phi3_assets.data.read.named_splits import UNNAMED, sides_of
from phi3_assets.data.read.rows import Section
from phi3_assets.data.read.shapes import ShapeSettings
from phi3_assets.data.records import BLOCK_BYTES, BLOCK_ROWS, SCHEMA, block_path, messages_column, open_block

_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 120
ARRAYS: dict[str, Any] = {
    "id": np.uint64,
    "group": np.uint64,
    "answer": np.uint64,
    "asked": np.uint64,
    "first": np.uint64,
    "row": np.int64,
    "side": np.uint8,
    "named": np.uint8,
    "sketch": np.uint8,
    "counts": np.int32,
    "whole": np.uint64,
    "without": np.uint64,
    "spelt": np.uint64,
}
"""The arrays of a part beside its MinHash bands, and their types; side is a position in `records.SPLITS`, named the
side that the file or the array is called after (`named_splits`).

asked is the hash of the whole question, which no policy changes; first, of rows with several, that of the first
question. without and spelt have one value per word and not per record, see `words.Hashed`.
"""
BAND_ARRAYS = [f"band{i}" for i in range(BANDS)]
BLOCK_ENDS = "blocks.bin"
"""The file that says where each block ends, in records."""
REPEATABLE = ["id", "group", *BAND_ARRAYS]
"""The arrays of which a part also holds the `halves`: what is looked up is which of their values repeat."""
LAYOUT = 4
"""Raised when parts lie otherwise on disk, so that those in caches are made anew."""
NO_ANSWER = 0
"""In the array `answer`, of a record that is not one question and one answer."""


@dataclass(frozen=True)
class PartSettings:
    """The recipe fields that a part depends on; see the recipe for what they mean."""

    question_column: str
    answer_column: str
    dataset_shape: str
    dataset_encoding: str
    role_names: Sequence[str]
    ignore_columns: Sequence[str]
    group_column: str
    test_share: float
    personal_data: str
    secrets: str

    def shape_settings(self) -> ShapeSettings:
        """What of it says how rows are read."""
        return ShapeSettings(
            question_column=self.question_column,
            answer_column=self.answer_column,
            shape=self.dataset_shape,
            group_column=self.group_column,
            roles=dict(name.casefold().split("=", 1) for name in self.role_names),
            ignored=frozenset(name.strip().casefold() for name in self.ignore_columns),
        )


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
    unused: dict[str, int] = field(default_factory=dict)  # rows of each column that nothing is made of
    met: dict[str, dict[str, int]] = field(default_factory=dict)  # by reason: what it was, and in how many rows
    preview: list[dict[str, Any]] = field(default_factory=list)

    def count(self, judged: Judged) -> None:
        """Add what was found in some rows."""
        self.personal_data.update(judged.personal_data)
        self.secrets.update(judged.secrets)
        self.rows_with_personal_data += judged.rows_with_personal_data
        self.rows_with_secrets += judged.rows_with_secrets


@dataclass
class RowBatch:
    """Rows that have become messages, flat."""

    numbers: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    chars: int = 0


class PartStore:
    """Writes blocks and arrays as the batches come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._block: pq.ParquetWriter | None = None
        self._arrays: dict[str, IO[bytes]] = {}
        self._block_ends: list[int] = []
        self._block_bytes = 0
        self.rows = 0

    def __enter__(self) -> "PartStore":
        self._arrays = {name: (self._folder / f"{name}.bin").open("wb") for name in (*ARRAYS, *BAND_ARRAYS)}
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for file in self._arrays.values():
            file.close()
        self._end_block()
        if error is None:
            np.array(self._block_ends, np.int64).tofile(self._folder / BLOCK_ENDS)
            for name in REPEATABLE:
                halves(np.fromfile(self._folder / f"{name}.bin", np.uint64)).tofile(self._folder / f"{name}.halves")

    def add(
        self,
        file: str,
        batch: RowBatch,
        turns: NDArray[np.int64],
        texts: pa.Array,
        plain: pa.Array,
        settings: PartSettings,
        facts: FileReport,
        sections: Sequence[Section],
    ) -> None:
        """Store the records of a batch: `turns` messages each, their contents in `texts` end to end.

        `plain` are the same contents without any personal data or secret.
        """
        rows = len(turns)
        ends = np.cumsum(turns)
        roles = np.array(batch.roles)
        first_roles = roles[ends - turns]
        firsts = first_questions(roles, texts, turns)
        simple = (turns == 2) & (first_roles == "user")
        plain_firsts = firsts if plain is texts else first_questions(roles, plain, turns)
        if simple.all():
            questions, asked = firsts, plain_firsts
        else:
            asked = asked_questions(roles, plain, turns)
            is_same = plain is texts and not (first_roles == "system").any()
            questions = asked if is_same else _questions(texts, turns, ends)
        words = hashed(asked)
        answers = normalise(texts.take(pa.array(ends - 1)))
        ids = digests(identifying_texts(batch.roles, texts.to_pylist(), turns.tolist()))
        if settings.group_column:
            groups = digests(f"{settings.group_column}\x1f{value}" for value in batch.groups)
        else:
            groups = digests((firsts if simple.all() else opening_questions(roles, texts, turns)).to_pylist())
        group_hashes = as_hashes(groups)
        # A passage asks nothing, so nothing can be tested with it, nor with a greeting.
        asks_nothing = (first_roles == "text") | (simple & is_greeting(firsts))
        split = np.where(asks_nothing, "train", hash_split(group_hashes, settings.test_share))
        answer_hashes = as_hashes(digests(answers.to_pylist())) | np.uint64(1)
        sketches, bands = sketch(questions, answers)
        arrays: dict[str, NDArray[Any]] = {
            "id": as_hashes(ids),
            "group": group_hashes,
            "answer": np.where(simple, answer_hashes, NO_ANSWER).astype(np.uint64),
            "asked": asked_hashes(asked),
            "first": np.where(simple | (first_roles == "text"), 0, asked_hashes(plain_firsts)).astype(np.uint64),
            "row": np.array(batch.numbers, np.int64),
            "side": (split == "test").astype(np.uint8),
            "named": np.where(asks_nothing, UNNAMED, sides_of(file, sections, batch.numbers)).astype(np.uint8),
            "sketch": sketches,
            **words._asdict(),
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
        if self._block is None:
            self._block = open_block(block_path(self._folder, len(self._block_ends)))
            self._block_bytes = 0
        start = self._block_ends[-1] if self._block_ends else 0
        room = BLOCK_ROWS - (self.rows - start)
        head = table.slice(0, room)
        self._block.write_batch(head)
        self._block_bytes += head.nbytes
        self.rows += head.num_rows
        if self.rows - start == BLOCK_ROWS or self._block_bytes >= BLOCK_BYTES:
            self._end_block()
        if table.num_rows > room:
            self._write(table.slice(room))

    def _end_block(self) -> None:
        if self._block is not None:
            self._block.close()
            self._block = None
            self._block_ends.append(self.rows)


def _questions(texts: pa.Array, turns: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.Array:
    """All that comes before the last answer of each row, normalised."""
    contents = texts.to_pylist()
    joined = ["\n".join(contents[end - count : end - 1]) for count, end in zip(turns, ends, strict=True)]
    return normalise(pa.array(joined, pa.string()))


def asked_hashes(questions: pa.Array) -> Hashes:
    """Hashes of normalised questions; 0 for a row that asks nothing."""
    hashes = as_hashes(digests(questions.to_pylist()))
    hashes[pc.equal(pc.binary_length(questions), 0).to_numpy(zero_copy_only=False)] = 0
    return hashes


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
