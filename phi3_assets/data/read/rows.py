"""What every reader yields and shares: rows, what is known of their file, and how it is opened."""

import gzip
import io
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

from phi3_assets.core.files import open_file
from phi3_assets.data.read.encoding import detect_encoding
from phi3_assets.data.read.sources import SourceFile

_CHUNK_BYTES = 1 << 20


class Row(NamedTuple):
    """One row: its number in the file from 1 (a header is not counted), and its value or why it has none."""

    number: int
    value: Any
    reason: str | None = None


class FileDamage(Exception):
    """The rest of a file cannot be read; `reason` is a code, `detail` says what was found, without the user's text."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass
class FileFacts:
    """What the reader found out about a file; complete once its rows have been read."""

    format: str
    encoding: str | None = None
    delimiter: str | None = None
    compression: str | None = None


def open_bytes(file: SourceFile) -> IO[bytes]:
    """The content of a file, unpacked."""
    if file.gzip:
        return cast(IO[bytes], gzip.open(open_file(file.path), "rb"))
    return open_file(file.path)


def open_text(file: SourceFile, facts: FileFacts) -> IO[str]:
    """Text with its own line ends. Bytes that do not decode become U+FFFD, which `records` quarantines."""
    with open_bytes(file) as raw:
        facts.encoding = detect_encoding(iter(lambda: raw.read(_CHUNK_BYTES), b""))
    return io.TextIOWrapper(open_bytes(file), encoding=facts.encoding, errors="replace", newline="")
