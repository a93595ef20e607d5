"""Erasing a person's rows: which rows are theirs, and a test set without them. No text of them is ever told.

What stays of an erased row are hashes: of what it asked and of its group, so that it is still never trained on.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.core.errors import UserError
from phi3_assets.data.fingerprints import digests, normalise
from phi3_assets.data.judge.frozen_rows import with_asked
from phi3_assets.data.records import conversations, messages_column
from phi3_assets.data.testset.frozen import FORGOTTEN_KEY, SETTINGS_KEY, open_test_set, write_test_set


@dataclass(frozen=True)
class Wanted:
    """Whose rows: any that one of these fits.

    Attributes:
        ids: Ids of records, whole.
        pattern: A regular expression, looked for in every message; case does not count.
        groups: Values of the group column, or questions where rows are grouped by their question.
    """

    ids: frozenset[str] = frozenset()
    pattern: str = ""
    groups: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Refuse what cannot be looked for."""
        if not (self.ids or self.pattern or self.groups):
            raise UserError("Say whose rows: --id, --match or --group.")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise UserError(f"--match is no regular expression: {error}.") from None

    def among(self, records: pa.Table, group_column: str) -> NDArray[np.bool_]:
        """Which records are theirs; `group_column` is the one they were grouped by."""
        found = np.isin(np.array(records["id"].to_pylist(), object), list(self.ids))
        if self.groups:
            values = list(self.groups)
            named = [f"{group_column}\x1f{value.strip()}" for value in values]
            texts = named if group_column else normalise(pa.array(values, pa.string())).to_pylist()
            hashes = [digest.hex()[:32] for digest in digests(texts)]
            found |= np.isin(np.array(records["group"].to_pylist(), object), hashes)
        if self.pattern:
            wanted = re.compile(self.pattern, re.IGNORECASE)
            rows = [row for batch in records.to_batches() for row in conversations(batch)]
            found |= np.array([any(wanted.search(content) for _, content in row) for row in rows], bool)
        return found


def erase(content: bytes, wanted: Wanted) -> tuple[bytes, int, frozenset[str]]:
    """A test set without the texts of some rows.

    Args:
        content: The file's bytes.
        wanted: Whose rows.

    Returns:
        The new bytes, how many rows were erased, and their ids.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "version.parquet"
        path.write_bytes(content)
        file = open_test_set(path, is_present=True)
        records = with_asked(file.read())
    rows = [row for batch in records.to_batches() for row in conversations(batch)]
    alive = np.array([bool(row) for row in rows], bool)
    theirs = alive & wanted.among(records, (file.settings or {}).get("group_column", ""))
    if not theirs.any():
        return content, 0, frozenset()
    kept = [[] if gone else row for row, gone in zip(rows, theirs, strict=True)]
    roles = [role for row in kept for role, _ in row]
    contents = pa.array([text for row in kept for _, text in row], pa.string())
    messages = messages_column(roles, contents, np.array([len(row) for row in kept], np.int64))
    files = [None if gone else name for name, gone in zip(records["file"].to_pylist(), theirs, strict=True)]
    places = [None if gone else row for row, gone in zip(records["row"].to_pylist(), theirs, strict=True)]
    for name, column in (
        ("messages", messages),
        ("file", pa.array(files, pa.string())),
        ("row", pa.array(places, pa.int64())),
    ):
        records = records.set_column(records.schema.get_field_index(name), name, column)
    metadata = dict(file.metadata)
    kept_metadata = {key: metadata[key] for key in (SETTINGS_KEY,) if key in metadata}
    out = pa.BufferOutputStream()
    write_test_set(out, records, kept_metadata | {FORGOTTEN_KEY: b"1"})
    ids = frozenset(records["id"].filter(pa.array(theirs)).to_pylist())
    return out.getvalue().to_pybytes(), int(theirs.sum()), ids


def holds(raw_dataset: Path, wanted: Wanted, group_column: str) -> int:
    """How many records of a `raw_dataset`, its test set included, are theirs."""
    columns = ["id", "group", "messages"]
    files = [*sorted((raw_dataset / "records.parquet").glob("*.parquet")), raw_dataset / "test_set.parquet"]
    return sum(int(wanted.among(pq.read_table(file, columns=columns), group_column).sum()) for file in files)
