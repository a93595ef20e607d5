"""Frozen test sets: files of records that are tested with, and so are never trained on again.

A folder holds every test set there ever was, `<version>.parquet` with the schema of records; the last by name is the
present one. A step only reads them. It leaves the test set it used, or proposes, as `test_set.parquet` in its output;
freezing that file under the next version is up to whoever runs the steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.core.errors import UserError
from phi3_assets.data.fingerprints import Hashes
from phi3_assets.data.records import BLOCK_ROWS, SCHEMA, open_block

TEST_SET = "test_set.parquet"
_KEYS = ["id", "group"]


@dataclass(frozen=True)
class TestSets:
    """What was frozen: every record that ever was a test, those of the present test set first, each once.

    Attributes:
        names: Names of the versions, oldest first.
        files: Their files, the present one first and then the past ones.
        keys: id and group of the records of all files, end to end.
        first: Which of these stand there for the first time.
        present_rows: Records of the present test set; 0 before the first freeze.
    """

    __test__ = False  # pytest: not a test

    names: list[str]
    files: list[Path]
    keys: pa.Table
    first: NDArray[np.bool_]
    present_rows: int

    @cached_property
    def ids(self) -> Hashes:
        """Beginnings of the ids of every record, those of the present test set first."""
        return prefix_hashes(self.keys["id"])[self.first]

    @cached_property
    def groups(self) -> Hashes:
        """Beginnings of their groups."""
        return prefix_hashes(self.keys["group"])[self.first]

    def records(self, wanted: NDArray[np.int64]) -> pa.Table:
        """Some records in full, by their places in `ids`; read only now, for mostly none is wanted."""
        if not len(wanted):
            return SCHEMA.empty_table()
        tables = [_read(file) for file in self.files]
        return pa.concat_tables(tables).take(pa.array(np.flatnonzero(self.first)[wanted]))

    def check(self) -> None:
        """Read every file to its end.

        Raises:
            UserError: One is damaged.
        """
        for file in self.files:
            _read(file)


def load_test_sets(folder: Path | None) -> TestSets:
    """Read the folder; None or an empty folder is the state before the first freeze.

    Raises:
        UserError: A file that is no test set, or damaged where it says what it holds; see `TestSets.check`.
    """
    versions = sorted(folder.glob("*.parquet")) if folder is not None and folder.is_dir() else []
    files = [*versions[-1:], *versions[:-1]]
    keys = [_read(file, _KEYS) for file in files]
    table = pa.concat_tables([*keys, pa.schema([SCHEMA.field(name) for name in _KEYS]).empty_table()])
    first = np.ones(table.num_rows, bool)
    if len(files) > 1:
        first[:] = False
        first[np.unique(prefix_hashes(table["id"]), return_index=True)[1]] = True
    return TestSets([file.stem for file in versions], files, table, first, keys[0].num_rows if keys else 0)


def _read(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        with pq.ParquetFile(file) as content:
            if content.schema_arrow.names != SCHEMA.names:
                raise UserError(
                    f"Frozen test set {file.name} is none: it has the columns {content.schema_arrow.names}."
                )
            return content.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise UserError(
            f"Frozen test set {file.name} cannot be read ({type(error).__name__}). Restore it from a backup: "
            "without it nobody can tell whether a model was trained on its rows."
        ) from None


def write_test_set(path: Path, records: pa.Table) -> None:
    """Write a test set; equal records give equal bytes."""
    with open_block(path) as writer:
        # Parquet pages follow the chunks of a table, which tell how it was put together and not what is in it.
        writer.write_table(records.cast(SCHEMA).combine_chunks(), row_group_size=BLOCK_ROWS)


def prefix_hashes(hex_digests: pa.ChunkedArray) -> Hashes:
    """The first 8 bytes of hex digests as numbers, comparable with the arrays of a part."""
    return _as_numbers(hex_digests)[:, 0]


def suffix_hashes(hex_digests: pa.ChunkedArray) -> Hashes:
    """The next 8 bytes, which tell nothing about the first."""
    return _as_numbers(hex_digests)[:, 1]


def _as_numbers(hex_digests: pa.ChunkedArray) -> NDArray[np.uint64]:
    """Digests of 32 hex digits, two numbers each: shape (digests, 2)."""
    numbers = [np.zeros((0, 2), np.uint64)]
    for chunk in hex_digests.chunks:
        if len(chunk):
            _, offsets, text = chunk.buffers()
            start, end = np.frombuffer(offsets, np.int32)[[chunk.offset, chunk.offset + len(chunk)]].tolist()
            digits = text[start:end].to_pybytes().decode("ascii")
            numbers.append(np.frombuffer(bytes.fromhex(digits), ">u8").astype(np.uint64).reshape(-1, 2))
    return np.concatenate(numbers)
