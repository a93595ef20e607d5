"""Reads columnar files: parquet, and arrow as Hugging Face writes it."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data.read.limits import MAX_UNPACKED_BYTES
from phi3_assets.data.read.rows import FileDamage, FileFacts, Rank, Row, open_bytes
from phi3_assets.data.read.sources import SourceFile

_BATCH_ROWS = 4096
_BATCH_BYTES = 8 << 20
"""Rows are counted so that about so much is in memory at a time, however long they are."""


def read_parquet(file: SourceFile, _: FileFacts, __: Rank) -> Iterator[Row]:
    """Rows as dicts by the columns' names."""
    try:
        with pq.ParquetFile(_seekable(file)) as parquet:
            groups = (parquet.metadata.row_group(i) for i in range(parquet.metadata.num_row_groups))
            widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
            yield from _numbered(parquet.iter_batches(batch_size=_rows_at_once(widest)))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileDamage("broken_parquet", f"it is no whole parquet file ({type(error).__name__})") from None


def read_arrow(file: SourceFile, _: FileFacts, __: Rank) -> Iterator[Row]:
    """Arrow's stream format, as Hugging Face's save_to_disk writes it, or its file format."""
    try:
        source = _seekable(file)
        with pa.memory_map(source) if isinstance(source, str) else source as opened:
            if opened.read(6) == b"ARROW1":
                rows = pa.ipc.open_file(opened)
                batches = (rows.get_batch(i) for i in range(rows.num_record_batches))
            else:
                opened.seek(0)
                batches = iter(pa.ipc.open_stream(opened))
            yield from _numbered(piece for batch in batches for piece in _pieces(batch))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileDamage("broken_arrow", f"it is no whole arrow file ({type(error).__name__})") from None


def _seekable(file: SourceFile) -> Any:
    """A path, or the unpacked content in memory: these formats are read from their end or in jumps."""
    if not file.gzip:
        return str(file.path)
    with open_bytes(file) as unpacked:
        content = unpacked.read(MAX_UNPACKED_BYTES + 1)
    if len(content) > MAX_UNPACKED_BYTES:
        raise FileDamage("too_large", f"unpacked it is larger than {MAX_UNPACKED_BYTES >> 30} GiB")
    return pa.BufferReader(content)


def _rows_at_once(bytes_a_row: float) -> int:
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(bytes_a_row, 1))))


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    rows = _rows_at_once(batch.nbytes / max(batch.num_rows, 1))
    return (batch.slice(at, rows) for at in range(0, batch.num_rows, rows))


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for value in batch.to_pylist():
            number += 1
            yield Row(number, value)
