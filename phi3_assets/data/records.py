"""The canonical record, one per kept row: stable id, messages, where it came from, group and split.

`records.parquet` is a directory of parquet blocks of up to `BLOCK_ROWS` rows or about `BLOCK_BYTES` bytes. Parquet and
not JSON lines, because a million rows are read again in a second instead of ten. Blocks, so that the blocks of an
unchanged file are copied and recognised by the next step, and not written and tokenised again.
`pyarrow.parquet.read_table` reads the directory.
Columns: id, messages (list of role and content), file, row, group, split.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data import Message

RECORDS = "records.parquet"
BLOCK_ROWS = 32_768
BLOCK_BYTES = 16 << 20
"""A block ends with so much text even if it has fewer rows: whoever reads one holds it whole."""
SPLITS = ("train", "test", "held_out")
"""held_out: belongs to the test side, but came after the test set was frozen; neither trained on nor tested with."""

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("file", pa.string()),
        ("row", pa.int64()),
        ("group", pa.string()),
        ("split", pa.string()),
    ]
)


def block_path(folder: Path, number: int) -> Path:
    """Blocks are in the order of their names."""
    return folder / f"{number:06d}.parquet"


def blocks(folder: Path) -> list[Path]:
    """The blocks of a records directory, in order."""
    return sorted(folder.glob("*.parquet"))


def training_ids(folder: Path) -> set[str]:
    """Ids of the rows that are trained on."""
    found: set[str] = set()
    for block in blocks(folder):
        table = pq.read_table(block, columns=["id"], filters=[("split", "==", "train")])
        found.update(table["id"].to_pylist())
    return found


def open_block(path: Path) -> pq.ParquetWriter:
    """A writer of records; equal records give equal bytes."""
    return pq.ParquetWriter(path, SCHEMA, compression="lz4", use_dictionary=["file", "split"], write_statistics=False)


def conversations(batch: pa.RecordBatch) -> Iterator[list[Message]]:
    """The messages of each row. Flat columns and offsets: `to_pylist` on the nested column takes ten times as long."""
    turns = batch.column("messages")
    values = turns.flatten()
    pairs = list(zip(values.field("role").to_pylist(), values.field("content").to_pylist(), strict=True))
    offsets = turns.offsets.to_pylist()
    first = offsets[0] if offsets else 0
    for start, end in pairwise(offsets):
        yield pairs[start - first : end - first]


def messages_column(
    roles: list[str], contents: pa.Array, turns: "np.ndarray[tuple[int], np.dtype[np.int64]]"
) -> pa.Array:
    """The nested column, from the roles and contents of all rows in turn and the number of messages of each row."""
    offsets = np.concatenate([[0], np.cumsum(turns)]).astype(np.int32)
    pairs = pa.StructArray.from_arrays([pa.array(roles, pa.string()), contents], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(offsets), pairs)
