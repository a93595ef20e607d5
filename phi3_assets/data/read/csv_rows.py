"""Reads delimited text: any delimiter, quotes as people write them, line ends in fields, titles above the header."""

import csv
from collections.abc import Iterator
from typing import IO

from phi3_assets.data.read.dialect import Dialect, sniff, undo_backslashes
from phi3_assets.data.read.json_values import is_json
from phi3_assets.data.read.limits import lines
from phi3_assets.data.read.rows import FileDamage, FileFacts, Rank, Row, open_text
from phi3_assets.data.read.sources import SourceFile
from phi3_assets.data.read.table import LOOKED_AT, column_names, find_header, row_of

_FIELD_LIMIT_CHARS = 1 << 20
_SAMPLE_CHARS = 1 << 16


class _TooLong(Exception):
    """A line is longer than a row may be; the next ones can be read."""


class _Lines:
    """Lines for `csv.reader` that can be handed back, so that an unclosed quote costs one line and not the file."""

    def __init__(self, text: IO[str], dialect: Dialect) -> None:
        self._text = lines(text)
        self._backslashes = dialect.quotes == "backslash"
        self._again: list[str] = []
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        if line is None:
            raise _TooLong
        self.taken.append(line)
        return undo_backslashes(line) if self._backslashes else line

    def hand_back_all_but_first(self) -> None:
        self._again.extend(reversed(self.taken[1:]))


def read_csv(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    """Rows as dicts by the header's names; a line that does not parse costs itself and no other."""
    csv.field_size_limit(_FIELD_LIMIT_CHARS)
    with open_text(file, facts) as text:
        sample = text.read(_SAMPLE_CHARS)
        whole = not text.read(1)
    if sample.lstrip()[:1] in ("{", "[") and is_json(sample.lstrip().splitlines()[0]):
        raise FileDamage("other_format", "it is JSON: name it .jsonl or .json")
    dialect = sniff(sample, whole=whole)
    facts.delimiter = dialect.delimiter
    facts.quotes = None if dialect.quotes == "doubled" else dialect.quotes
    with open_text(file, facts) as text:
        first_lines = [fields for fields, _ in _take(_fields(text, dialect), LOOKED_AT)]
    above = find_header([fields or [] for fields in first_lines], rank)
    facts.header_line = above + 1 + dialect.said if above or dialect.said else None
    with open_text(file, facts) as text:
        each = _fields(text, dialect)
        upto_header = list(_take(each, above + 1))
        if not upto_header:
            return
        header, reason = upto_header[-1]
        if header is None:
            raise FileDamage("bad_header", f"the header cannot be read ({reason})")
        names = column_names(header)
        for number, (fields, reason) in enumerate(each, 1):
            yield Row(number, None, reason) if fields is None else row_of(number, names, fields)


Fields = tuple[list[str] | None, str]
"""The fields of a line, or why it has none."""


def _take(each: Iterator[Fields], count: int) -> Iterator[Fields]:
    """The first of them; what is behind can still be read."""
    for _ in range(count):
        try:
            yield next(each)
        except StopIteration:
            return


def _fields(text: IO[str], dialect: Dialect) -> Iterator[Fields]:
    """The fields of each line that is not blank."""
    source = _Lines(text, dialect)
    if dialect.quotes == "none":
        reader = csv.reader(source, delimiter=dialect.delimiter, strict=True, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(source, delimiter=dialect.delimiter, strict=True)
    if dialect.said:
        next(source, None)
    while True:
        source.taken.clear()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except _TooLong:
            yield None, "too_large"
            continue
        except csv.Error:
            source.hand_back_all_but_first()
            yield None, "bad_quotes"
            continue
        if fields:
            yield fields, ""
