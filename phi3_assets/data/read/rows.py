"""What every reader yields and shares: rows, what is known of their file, and how it is opened."""

import gzip
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple, cast

from phi3_assets.core.files import open_file
from phi3_assets.data.read.encoding import detect_encoding
from phi3_assets.data.read.sources import SourceFile

_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 16


class Row(NamedTuple):
    """One row: its number in the file from 1 (a header is not counted), and its value or why it has none."""

    number: int
    value: Any
    reason: str | None = None


Rank = Callable[[Any], int]
"""How much a value looks like a row of the dataset: 2 if it becomes messages, 1 if it has their columns, 0 if not."""


def any_object(value: Any) -> int:
    """The `Rank` of whoever wants all objects."""
    return int(isinstance(value, dict))


class FileDamage(Exception):
    """The rest of a file cannot be read; `reason` is a code, `detail` says what was found, without the user's text."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Section(NamedTuple):
    """An array or a sheet of a file.

    Attributes:
        name: Its path in the JSON, with dots, or its title.
        kind: "array" or "sheet".
        first_row: Number in the file of its first row.
        first_line: Number of that row in the section, as a person counts there: a sheet's header counts.
    """

    name: str
    kind: str
    first_row: int
    first_line: int


@dataclass
class FileFacts:
    """What the reader found out about a file; complete once its rows have been read.

    Attributes:
        format: csv, json, jsonl, parquet, arrow, xlsx, xls, xlsb or ods.
        encoding: Of the text.
        encoding_certainty: How likely that is, 0 to 1; None where it is known.
        delimiter: Between the fields of delimited text.
        quotes: How quotes are meant in it, "backslash" or "none"; None: doubled, as they should be.
        header_line: The line of its header, blank lines not counted, where lines stand above it.
        compression: gzip, if it is.
        sections: The arrays or sheets that its rows come from, in their order.
        left_out: Arrays and sheets that hold no rows of the dataset, with the columns of their first object.
        is_note: It is one JSON object without rows of the dataset: something about the data, if there is other data.
    """

    format: str
    encoding: str | None = None
    encoding_certainty: float | None = None
    delimiter: str | None = None
    quotes: str | None = None
    header_line: int | None = None
    compression: str | None = None
    sections: list[Section] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    is_note: bool = False


_PACKED = b"\x1f\x8b"
_NO_TEXT = {
    _PACKED: "is packed with gzip: add .gz to its name",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or name it .xlsx",
    b"PAR1": "is parquet: name it .parquet",
    b"ARROW1": "is arrow: name it .arrow",
    b"\xd0\xcf\x11\xe0": "is a document of an older Office: if it is a spreadsheet, name it .xls",
    b"%PDF": "is a PDF: its text must be taken out first",
    b"BZh": "is packed with bzip2: unpack it, or pack it with gzip",
    b"\xfd7zXZ": "is packed with xz: unpack it, or pack it with gzip",
    b"\x28\xb5\x2f\xfd": "is packed with zstd: unpack it, or pack it with gzip",
    b"SQLite format 3": "is a database: write its table as csv",
}
"""What begins so is no text, whatever its name says."""


def open_bytes(file: SourceFile) -> IO[bytes]:
    """The content of a file, unpacked; one that is only named so is as it is."""
    content = open_file(file.path)
    if not file.gzip or content.read(len(_PACKED)) not in (_PACKED, b""):
        content.seek(0)
        return content
    content.seek(0)
    return cast(IO[bytes], gzip.open(content, "rb"))


def open_text(file: SourceFile, facts: FileFacts) -> IO[str]:
    """Text with its own line ends. Bytes that do not decode become U+FFFD, which `judge.parts` quarantines.

    Raises:
        FileDamage: It is no text.
    """
    if facts.encoding is None:
        with open_bytes(file) as raw:
            head = raw.read(_HEAD_BYTES)
            if found_out := next((what for mark, what in _NO_TEXT.items() if head.startswith(mark)), None):
                raise FileDamage("other_format", f"it {found_out}")
            raw.seek(0)
            found = detect_encoding(iter(lambda: raw.read(_CHUNK_BYTES), b""), file.encoding)
        facts.encoding, facts.encoding_certainty = found
    return io.TextIOWrapper(open_bytes(file), encoding=facts.encoding, errors="replace", newline="")
