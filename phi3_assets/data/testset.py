"""Frozen test sets: files of records that are tested with, and so are never trained on again.

A folder holds every test set there ever was, `<version>.parquet` with the schema of records; the last by name is the
present one. A step only reads them. It leaves the test set it used, or proposes, as `test_set.parquet` in its output;
freezing that file under the next version is up to whoever runs the steps.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data.fingerprints import Hashes
from phi3_assets.data.records import BLOCK_ROWS, SCHEMA, open_block
from phi3_assets.errors import UserError

TEST_SET = "test_set.parquet"


@dataclass(frozen=True)
class TestSets:
    """What was frozen.

    Attributes:
        present: Records of the present test set, or None before the first freeze.
        past: Records of all earlier test sets that are not in the present one.
        names: Names of the versions, oldest first.
    """

    __test__ = False  # pytest: not a test

    present: pa.Table | None
    past: pa.Table
    names: list[str]

    @property
    def everything(self) -> pa.Table:
        """The present test set and then the past ones."""
        return self.past if self.present is None else pa.concat_tables([self.present, self.past])


def load_test_sets(folder: Path | None) -> TestSets:
    """Read the folder; None or an empty folder is the state before the first freeze.

    Raises:
        UserError: A file that is no test set.
    """
    files = sorted(folder.glob("*.parquet")) if folder is not None and folder.is_dir() else []
    tables: list[pa.Table] = []
    for file in files:
        try:
            table = pq.read_table(file)
        except (pa.ArrowException, OSError) as error:
            raise UserError(
                f"Frozen test set {file.name} cannot be read ({type(error).__name__}). Restore it from a backup: "
                "without it nobody can tell whether a model was trained on its rows."
            ) from None
        if table.schema.names != SCHEMA.names:
            raise UserError(f"Frozen test set {file.name} is none: it has the columns {table.schema.names}.")
        tables.append(table)
    present = tables[-1] if tables else None
    known = set(tables[-1]["id"].to_pylist()) if len(tables) > 1 else set()
    past: list[pa.Table] = []
    for table in tables[:-1]:
        new = [identity not in known for identity in table["id"].to_pylist()]
        known.update(table["id"].to_pylist())
        past.append(table.filter(pa.array(new, pa.bool_())))
    return TestSets(present, pa.concat_tables([*past, SCHEMA.empty_table()]), [file.stem for file in files])


def write_test_set(path: Path, records: pa.Table) -> None:
    """Write a test set; equal records give equal bytes."""
    with open_block(path) as writer:
        # Parquet pages follow the chunks of a table, which tell how it was put together and not what is in it.
        writer.write_table(records.cast(SCHEMA).combine_chunks(), row_group_size=BLOCK_ROWS)


def prefix_hashes(hex_digests: pa.ChunkedArray) -> Hashes:
    """The first 8 bytes of hex digests as numbers, comparable with the arrays of a part."""
    return _hashes(digest[:16] for digest in hex_digests.to_pylist())


def suffix_hashes(hex_digests: pa.ChunkedArray) -> Hashes:
    """The next 8 bytes, which tell nothing about the first."""
    return _hashes(digest[16:32] for digest in hex_digests.to_pylist())


def _hashes(hex_numbers: Iterable[str]) -> Hashes:
    return np.frombuffer(bytes.fromhex("".join(hex_numbers)), dtype=">u8").astype(np.uint64)
