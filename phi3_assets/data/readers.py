"""From a file to its rows, as they stand: no judgement of their content, but every row that cannot be read is named.

A reader yields `Row`s in the order of the file and never holds more than a few thousand of them. What makes the rest
of a file unreadable (a truncated parquet, broken gzip) ends it with `FileDamage`; the rows before it are kept.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple, cast

import ijson  # type: ignore[import-untyped]
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data.encoding import detect_encoding
from phi3_assets.data.sources import SourceFile

_CHUNK_BYTES = 1 << 20
_FIELD_LIMIT_CHARS = 1 << 20
_BATCH_ROWS = 4096
_LONG_NUMBER = re.compile(r"\d{19}")
_DELIMITERS = ",;\t|"


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


def read_rows(file: SourceFile) -> tuple[FileFacts, Iterator[Row]]:
    """Open a file by its format; `Row.value` is a dict, or whatever else stands in a JSON file.

    The iterator raises `FileDamage` where the rest of the file cannot be read.
    """
    facts = FileFacts(file.format, compression="gzip" if file.gzip else None)
    rows = {"csv": _csv, "json": _json, "jsonl": _jsonl, "parquet": _parquet, "arrow": _arrow}[file.format](file, facts)
    return facts, _translate(rows)


def _translate(rows: Iterator[Row]) -> Iterator[Row]:
    """Errors of decompression and of the operating system can come up at any row."""
    try:
        yield from rows
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FileDamage("broken_gzip", f"the gzip stream is damaged or cut short ({type(error).__name__})") from None
    except OSError as error:
        raise FileDamage("unreadable", f"{error.strerror or type(error).__name__}") from None


def _open(file: SourceFile) -> IO[bytes]:
    if file.gzip:
        return cast(IO[bytes], gzip.open(file.path, "rb"))
    return file.path.open("rb")


def _open_text(file: SourceFile, facts: FileFacts) -> IO[str]:
    """Text with its own line ends. Bytes that do not decode become U+FFFD, which `records` quarantines."""
    with _open(file) as raw:
        facts.encoding = detect_encoding(iter(lambda: raw.read(_CHUNK_BYTES), b""))
    return io.TextIOWrapper(_open(file), encoding=facts.encoding, errors="replace", newline="")


# --- csv ---------------------------------------------------------------------------------------------------------


class _Lines:
    """Lines for `csv.reader` that can be handed back, so that an unclosed quote costs one line and not the file."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._again: list[str] = []
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self.taken.append(line)
        return line

    def hand_back_all_but_first(self) -> None:
        self._again.extend(reversed(self.taken[1:]))


def _csv(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_LIMIT_CHARS)
    with _open_text(file, facts) as text:
        facts.delimiter = sniff_delimiter(text.read(1 << 16))
    with _open_text(file, facts) as text:
        lines = _Lines(text)
        reader = csv.reader(lines, delimiter=facts.delimiter, strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            lines.taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error:
                if header is None:
                    raise FileDamage("bad_header", "the first line has a quote that does not close") from None
                lines.hand_back_all_but_first()
                number += 1
                yield Row(number, None, "bad_quotes")
                continue
            if not fields:  # a blank line is no row
                continue
            if header is None:
                header = [name.strip() for name in fields]
                if len(set(header)) < len(header):
                    raise FileDamage("bad_header", "two columns have the same name")
                continue
            number += 1
            if len(fields) == len(header):
                yield Row(number, dict(zip(header, fields, strict=True)))
            else:
                yield Row(number, None, "too_few_fields" if len(fields) < len(header) else "too_many_fields")


def sniff_delimiter(sample: str) -> str:
    """The delimiter that cuts the sample's lines into equally many fields, most of them; a comma if none does."""
    best = (0, ",")
    for delimiter in _DELIMITERS:
        counts: list[int] = []
        try:
            for fields in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
                if fields:
                    counts.append(len(fields))
        except csv.Error:
            pass  # the sample may end within quotes
        if counts and counts[0] > 1:
            # The header decides how many fields a row has; one more agreeing row counts more than one more field.
            best = max(best, (sum(count == counts[0] for count in counts), delimiter), key=lambda pair: pair[0])
    return best[1]


# --- json --------------------------------------------------------------------------------------------------------


def _jsonl(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    with _open_text(file, facts) as text:
        number = 0
        for line in text:
            if not line.strip():
                continue
            number += 1
            try:
                # orjson makes whole numbers beyond 64 bits floats.
                value = json.loads(line) if _LONG_NUMBER.search(line) else orjson.loads(line)
            except (ValueError, RecursionError):
                yield Row(number, None, "invalid_json")
                continue
            yield Row(number, value)


def _json(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    """An array of rows, an object that holds one at any depth, or one object per line after all."""
    with _open_text(file, facts) as text:
        first_line = next((line for line in text if line.strip()), "")
        more = any(line.strip() for line in text)
    if more and _is_json(first_line):
        yield from _jsonl(file, facts)
        return
    with _open_text(file, facts) as text:
        prefix = _array_prefix(text)
    number = 0
    with _open_text(file, facts) as text:
        try:
            for value in ijson.items(_Utf8(text), f"{prefix}.item" if prefix else "item"):
                number += 1
                yield Row(number, value)
        except ijson.JSONError:
            raise FileDamage("invalid_json", f"it is no valid JSON after row {number}") from None


class _Utf8:
    """ijson reads UTF-8 bytes; files come in other encodings too."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def read(self, size: int) -> bytes:
        return self._text.read(size).encode()


def _is_json(line: str) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True


def _array_prefix(text: IO[str]) -> str:
    """Where the first array of objects stands, as ijson's prefix."""
    try:
        array: str | None = None
        for prefix, event, _ in ijson.parse(_Utf8(text)):
            if event == "start_array":
                array = prefix
            elif array is not None and event == "start_map" and prefix == (f"{array}.item" if array else "item"):
                return array
    except ijson.JSONError:
        raise FileDamage("invalid_json", "it is no valid JSON") from None
    raise FileDamage("no_rows", "it holds no array of objects")


# --- parquet and arrow -------------------------------------------------------------------------------------------


def _parquet(file: SourceFile, _: FileFacts) -> Iterator[Row]:
    try:
        with pq.ParquetFile(_seekable(file)) as parquet:
            yield from _numbered(parquet.iter_batches(batch_size=_BATCH_ROWS))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileDamage("broken_parquet", f"it is no whole parquet file ({type(error).__name__})") from None


def _arrow(file: SourceFile, _: FileFacts) -> Iterator[Row]:
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
            yield from _numbered(batch.slice(at, _BATCH_ROWS) for batch in batches for at in _steps(batch.num_rows))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileDamage("broken_arrow", f"it is no whole arrow file ({type(error).__name__})") from None


def _seekable(file: SourceFile) -> Any:
    """A path, or the unpacked content in memory: these formats are read from their end or in jumps."""
    return pa.BufferReader(_open(file).read()) if file.gzip else str(file.path)


def _steps(rows: int) -> range:
    return range(0, rows, _BATCH_ROWS)


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for value in batch.to_pylist():
            number += 1
            yield Row(number, value)
