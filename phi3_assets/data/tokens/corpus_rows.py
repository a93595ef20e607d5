"""Tokenised rows as they are stored, and what is counted of them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data.tokens.model_tokens import IGNORED

TOKENS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("length", pa.int32()),
    ]
)
CORPUS_SCHEMA = TOKENS_SCHEMA.append(pa.field("group", pa.uint64()))
"""As stored. `group` is a hash of the row's group, of other bytes than the one that decides between training and test,
so that training can hold out whole groups to watch itself with."""
ENDLESS, TRUNCATED = 1, 2
"""Flags of a row."""


@dataclass
class Stats:
    """What the checks want to know of tokenised rows; those of several pieces are added up."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    rows_without_end_token: int = 0
    rows_fully_masked: int = 0
    rows_with_two_begin_tokens: int = 0
    rows_truncated: int = 0
    rows_tokenised: int = 0  # the others were known
    quarantined: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # tokens to rows

    def add(self, other: "Stats") -> None:
        """Take in the numbers of other rows."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(vars(self))

    @classmethod
    def load(cls, text: str) -> "Stats":
        """The inverse of `dump`."""
        values = json.loads(text)
        lengths = Counter({int(tokens): rows for tokens, rows in values.pop("lengths").items()})
        return cls(**values | {"quarantined": Counter(values["quarantined"]), "lengths": lengths})


@dataclass(frozen=True)
class CorpusRows:
    """Tokenised rows, and what the checks need of each beyond its tokens.

    Attributes:
        table: Rows of `TOKENS_SCHEMA`.
        prompts: Hashes of each row's prompts before its first answer and before its last, shape (rows, 2).
        flags: `ENDLESS` if an answer has no end token behind it, `TRUNCATED` if the row was cut.
    """

    table: pa.Table
    prompts: NDArray[np.uint64]
    flags: NDArray[np.uint8]

    def take(self, rows: NDArray[np.int64]) -> "CorpusRows":
        """Some of the rows, in the order given."""
        return CorpusRows(self.table.take(pa.array(rows)), self.prompts[rows], self.flags[rows])

    def stats(self, begin_id: int | None) -> Stats:
        """Count what is in the rows themselves."""
        table = self.table.combine_chunks()
        lengths = table["length"].to_numpy()
        ids = pc.list_flatten(table["input_ids"]).to_numpy()
        learnt = pc.list_flatten(table["labels"]).to_numpy() != IGNORED
        starts = np.cumsum(lengths) - lengths
        per_row = np.add.reduceat(learnt, starts, dtype=np.int64) if len(starts) else np.zeros(0, np.int64)
        second = np.minimum(starts + 1, len(ids) - 1)
        return Stats(
            rows=len(lengths),
            tokens=len(ids),
            supervised_tokens=int(per_row.sum()),
            rows_without_end_token=int(((self.flags & ENDLESS) > 0).sum()),
            rows_fully_masked=int((per_row == 0).sum()),
            rows_with_two_begin_tokens=int(((ids[starts] == begin_id) & (ids[second] == begin_id)).sum()),
            rows_truncated=int(((self.flags & TRUNCATED) > 0).sum()),
            lengths=Counter(dict(zip(*map(np.ndarray.tolist, np.unique(lengths, return_counts=True)), strict=True))),
        )


def join_rows(parts: Sequence[CorpusRows]) -> CorpusRows:
    """Rows of several, one after the other."""
    return CorpusRows(
        pa.concat_tables([TOKENS_SCHEMA.empty_table(), *(part.table for part in parts)]),
        np.concatenate([np.zeros((0, 2), np.uint64), *(part.prompts for part in parts)]),
        np.concatenate([np.zeros(0, np.uint8), *(part.flags for part in parts)]),
    )


def open_corpus(path: Path) -> pq.ParquetWriter:
    """A writer of tokenised rows; equal rows give equal bytes."""
    lists = ["input_ids.list.element", "labels.list.element"]
    return pq.ParquetWriter(path, CORPUS_SCHEMA, compression="zstd", use_dictionary=lists, write_statistics=False)
