"""The arrays of all parts, end to end, and the texts of the few records that are looked at more closely."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data import Message
from phi3_assets.data.fingerprints import PERMUTATIONS, Hashes, halves, normalise, shared
from phi3_assets.data.judge.keys import asked_questions, flat
from phi3_assets.data.judge.near import Pair
from phi3_assets.data.judge.part_store import ARRAYS, BLOCK_ENDS
from phi3_assets.data.judge.policies import apply_policies
from phi3_assets.data.judge.twins import Block
from phi3_assets.data.judge.words import Hashed
from phi3_assets.data.records import block_path, conversations

_ROWS_AT_ONCE = 300_000


class Parts:
    """The arrays of all parts, end to end."""

    def __init__(self, folders: Sequence[Path], rows: Sequence[int]) -> None:
        self.folders = list(folders)
        self.ends = np.cumsum(rows) if len(rows) else np.zeros(0, np.int64)
        self.starts = self.ends - np.array(rows, np.int64)
        self.rows = int(self.ends[-1]) if len(rows) else 0
        self._mapped: dict[int, NDArray[np.uint8]] = {}

    def load(self, name: str) -> NDArray[Any]:
        """One array, of all records."""
        kind = ARRAYS.get(name, np.uint64)
        return np.concatenate(
            [np.fromfile(folder / f"{name}.bin", kind) for folder in self.folders] or [np.zeros(0, kind)]
        )

    def repeated(self, name: str, values: Hashes) -> NDArray[np.bool_]:
        """Which of the values occur more than once; they are one array, of all records, perhaps after others."""
        lying = [np.fromfile(folder / f"{name}.halves", np.uint32) for folder in self.folders]
        return shared(values, np.concatenate([halves(values[: len(values) - self.rows]), *lying]))

    def blocks(self, part: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where each block of a part starts and ends, in records of that part."""
        ends = np.fromfile(self.folders[part] / BLOCK_ENDS, np.int64)
        return np.concatenate([np.zeros(1, np.int64), ends])[: len(ends)], ends

    def sketches(self, records: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The sketches of some records, read from where they lie."""
        result = np.zeros((len(records), 2, PERMUTATIONS), np.uint8)
        for part, places, inside in self._by_part(records):
            result[places] = self._lying(part)[inside]
        return result

    def _lying(self, part: int) -> NDArray[np.uint8]:
        """The sketches of a part, on the disk."""
        if part not in self._mapped:
            mapped = np.memmap(self.folders[part] / "sketch.bin", np.uint8, "r")
            self._mapped[part] = mapped.reshape(-1, 2, PERMUTATIONS)
        return self._mapped[part]

    def texts(self, records: Sequence[int]) -> dict[int, Pair]:
        """Normalised questions and answers of some records."""
        found: dict[int, Pair] = {}
        wanted = np.array(records, np.int64)
        for places, rows in self._conversations(wanted):
            found.update(zip(wanted[places].tolist(), question_answer_pairs(rows), strict=True))
        return found

    def hashed(self) -> list[Block]:
        """Hashes of the questions, some parts at a time: each time costs a look at all that is tested with."""
        numbers = (self.ends - 1) // _ROWS_AT_ONCE if self.rows else np.zeros(0, np.int64)
        rows = self.ends - self.starts
        return [
            Block(int(rows[numbers == number].sum()), partial(self._hashed, np.flatnonzero(numbers == number)))
            for number in np.unique(numbers)
        ]

    def _hashed(self, parts: NDArray[np.int64]) -> Hashed:
        lying = [
            [_mapped(self.folders[part] / f"{name}.bin", ARRAYS[name]) for part in parts] for name in Hashed._fields
        ]
        return Hashed(*(arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in lying))

    def questions(self, records: Sequence[int]) -> dict[int, str]:
        """Normalised questions of some records, without personal data or secrets."""
        found: dict[int, str] = {}
        wanted = np.array(records, np.int64)
        for places, rows in self._conversations(wanted):
            roles, contents, turns = flat(rows)
            plain = apply_policies(pa.array(contents, pa.string()), turns, None).plain
            asked = asked_questions(np.array(roles), plain, turns).to_pylist()
            found.update(zip(wanted[places].tolist(), asked, strict=True))
        return found

    def _conversations(self, wanted: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], list[list[Message]]]]:
        """Positions in `wanted` and the messages of those records, block by block."""
        for part, places, inside in self._by_part(wanted):
            starts, ends = self.blocks(part)
            block_of = np.searchsorted(ends, inside, side="right")
            for block in np.unique(block_of):
                here = block_of == block
                table = pq.read_table(block_path(self.folders[part], int(block)), columns=["messages"])
                chosen = table.take(pa.array(inside[here] - starts[block])).combine_chunks()
                yield places[here], [row for batch in chosen.to_batches() for row in conversations(batch)]

    def part_of(self, record: int) -> int:
        """Which part a record is in."""
        return int(np.searchsorted(self.ends, record, side="right"))

    def _by_part(self, records: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Part, positions in `records`, and record numbers within the part."""
        parts = np.searchsorted(self.ends, records, side="right")
        grouped = []
        for part in np.unique(parts):
            places = np.flatnonzero(parts == part)
            grouped.append((int(part), places, records[places] - self.starts[part]))
        return grouped


def _mapped(path: Path, kind: Any) -> NDArray[Any]:
    """An array as it lies on the disk: only what is looked at is copied."""
    return np.asarray(np.memmap(path, kind, "r")) if path.stat().st_size else np.zeros(0, kind)


def question_answer_pairs(rows: Sequence[list[Message]]) -> list[Pair]:
    """Normalised question (all before the last answer) and answer of conversations."""
    questions = normalise(pa.array(["\n".join(content for _, content in row[:-1]) for row in rows], pa.string()))
    answers = normalise(pa.array([row[-1][1] for row in rows], pa.string()))
    return list(zip(questions.to_pylist(), answers.to_pylist(), strict=True))
