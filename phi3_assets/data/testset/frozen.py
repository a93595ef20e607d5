"""Files of frozen test sets: records that are tested with, and so are never trained on again.

A snapshot holds every version there ever was, in `present/` and `earlier/`. A step only reads them. It leaves the test
set it used, or proposes, as `test_set.parquet` in its output; freezing that file is up to whoever runs the steps.

A test set has the columns of records and `asked`, the hash of the question that no policy changes, by which a row is
known again under any settings. A row that was forgotten has no messages, but still its hashes. The settings that the
other hashes depend on stand in the file's metadata.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.core.errors import UserError
from phi3_assets.data.fingerprints import Hashes
from phi3_assets.data.records import BLOCK_ROWS, SCHEMA
from phi3_assets.data.testset.versions import EARLIER, PRESENT

TEST_SCHEMA = SCHEMA.append(pa.field("asked", pa.string()))
NOT_KNOWN = "0" * 32
"""In the columns `asked` and `group`."""
SETTINGS = ("group_column", "personal_data", "secrets")
"""The recipe fields that ids and groups depend on."""
SETTINGS_KEY, FORGOTTEN_KEY = b"phi3_settings", b"phi3_forgotten"
"""In a file's metadata: the settings as JSON; that texts were erased."""


@dataclass(frozen=True)
class FrozenFile:
    """One version, as it lies.

    Attributes:
        path: The file.
        present: Whether it is what is tested with.
        settings: `SETTINGS` it was written under; None: it is from before they were kept.
        has_asked: Whether it holds the column `asked`.
        forgotten: Whether it holds rows whose texts were erased.
        metadata: The file's.
    """

    path: Path
    present: bool
    settings: dict[str, str] | None
    has_asked: bool
    forgotten: bool = False
    metadata: Mapping[bytes, bytes] = field(default_factory=dict)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Some columns of it, or all.

        Raises:
            UserError: It is damaged.
        """
        try:
            with pq.ParquetFile(self.path) as content:
                return content.read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, error) from None

    @cached_property
    def keys(self) -> pa.Table:
        """id, group and asked of its records."""
        table = self.read(["id", "group", *(["asked"] if self.has_asked else [])])
        return table if self.has_asked else table.append_column("asked", pa.array([NOT_KNOWN] * table.num_rows))


def load_test_sets(folder: Path | None) -> list[FrozenFile]:
    """The files of a snapshot, the present one first; None or an empty folder is the state before the first freeze.

    Raises:
        UserError: A file that is no test set, or damaged where it says what it holds.
    """
    if folder is None or not folder.is_dir():
        return []
    states = ((state, path) for state in (PRESENT, EARLIER) for path in sorted((folder / state).glob("*.parquet")))
    return [open_test_set(path, is_present=state == PRESENT) for state, path in states]


def check(files: Sequence[FrozenFile]) -> None:
    """Read every file to its end.

    Raises:
        UserError: One is damaged.
    """
    for file in files:
        file.read()


def open_test_set(path: Path, *, is_present: bool) -> FrozenFile:
    """Look at what a file says of itself.

    Raises:
        UserError: It is no test set, or damaged there.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from None
    if schema.names not in (SCHEMA.names, TEST_SCHEMA.names):
        raise UserError(f"Frozen test set {path.name} is none: it has the columns {schema.names}.")
    metadata = schema.metadata or {}
    settings = json.loads(metadata[SETTINGS_KEY]) if SETTINGS_KEY in metadata else None
    return FrozenFile(path, is_present, settings, "asked" in schema.names, FORGOTTEN_KEY in metadata, metadata)


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"Frozen test set {path.name} cannot be read ({type(error).__name__}). Restore it from a backup: "
        "without it nobody can tell whether a model was trained on its rows."
    )


def write_test_set(where: Path | pa.BufferOutputStream, records: pa.Table, metadata: Mapping[bytes, bytes]) -> None:
    """Write a test set; equal records give equal bytes."""
    # Parquet pages follow the chunks of a table, which tell how it was put together and not what is in it.
    table = records.cast(TEST_SCHEMA).combine_chunks().replace_schema_metadata(dict(metadata))
    with pq.ParquetWriter(
        where, table.schema, compression="lz4", use_dictionary=["file", "split"], write_statistics=False
    ) as writer:
        writer.write_table(table, row_group_size=BLOCK_ROWS)


def settings_metadata(settings: Mapping[str, str]) -> dict[bytes, bytes]:
    """The metadata of a test set that is under these settings."""
    return {SETTINGS_KEY: json.dumps({name: settings[name] for name in SETTINGS}).encode()}


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
