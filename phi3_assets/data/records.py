"""The canonical record, one per kept row: stable id, messages, where it came from, group and split.

Stored as parquet and not as JSON lines, because a million rows are read again by the next step in a second instead of
ten. Columns: id, messages (list of role and content), file, row, group, split.
"""

import hashlib
import re
import unicodedata
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data.shapes import Message
from phi3_assets.step import canonical_json

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
_ROW_GROUP = 16_384
_NOT_WORD = re.compile(r"[\W_]+")
# Tab, line feed and carriage return are text; the other control characters, U+FFFD (the mark of bytes that did not
# decode) and lone surrogates are damage.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_UNDECODABLE = re.compile("[\ufffd\ud800-\udfff]")


class Record(NamedTuple):
    """One row of the dataset as every later step sees it."""

    id: str
    messages: list[Message]
    file: str
    row: int
    group: str
    split: str


def text_problem(messages: list[Message]) -> str | None:
    """Reason code for text that nobody meant to write, else None."""
    for _, content in messages:
        if _CONTROL.search(content):
            return "control_characters"
        if not content.isascii() and _UNDECODABLE.search(content):
            return "undecodable"
    return None


def record_id(messages: list[Message]) -> str:
    """32 hex digits of the SHA-256 of the messages: the same content has the same id wherever it stands."""
    return hashlib.sha256(canonical_json(messages).encode()).hexdigest()[:32]


def group_of(messages: list[Message]) -> str:
    """Key of rows that must stay on one side of the split: 32 hex digits for the first question.

    Case, punctuation and spacing do not count, so that 'What is EIO?' and 'what is  EIO' are one group.
    """
    question = next(content for role, content in messages if role == "user")
    plain = _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", question).casefold()).strip()
    return hashlib.sha256((plain or question).encode()).hexdigest()[:32]


def split_of(group: str, test_share: float) -> str:
    """'test' or 'train', a function of the group alone: rows never change side when data is added or reordered."""
    return "test" if int(group[:8], 16) < test_share * 2**32 else "train"


class RecordWriter:
    """Writes records to a parquet file in row groups; equal records give equal bytes."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, SCHEMA, compression="zstd")
        self._records: list[Record] = []

    def add(self, record: Record) -> None:
        """Append one record."""
        self._records.append(record)
        if len(self._records) == _ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._records:
            self._writer.write_batch(_to_batch(self._records), row_group_size=_ROW_GROUP)
            self._records = []

    def __enter__(self) -> "RecordWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._writer.close()


def _to_batch(records: list[Record]) -> pa.RecordBatch:
    """Nested columns from flat ones: `from_pylist` takes three times as long."""
    roles: list[str] = []
    contents: list[str] = []
    offsets = [0]
    for record in records:
        for role, content in record.messages:
            roles.append(role)
            contents.append(content)
        offsets.append(len(roles))
    turns = pa.StructArray.from_arrays([pa.array(roles), pa.array(contents)], ["role", "content"])
    columns: list[pa.Array] = [
        pa.array([record.id for record in records]),
        pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns),
        pa.array([record.file for record in records]),
        pa.array([record.row for record in records], pa.int64()),
        pa.array([record.group for record in records]),
        pa.array([record.split for record in records]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
