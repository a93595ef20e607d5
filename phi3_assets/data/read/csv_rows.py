"""Reads delimited text: any delimiter, quotes, line ends within fields."""

import csv
import io
from collections.abc import Iterator
from typing import IO

from phi3_assets.data.read.limits import lines
from phi3_assets.data.read.rows import FileDamage, FileFacts, Row, open_text
from phi3_assets.data.read.sources import SourceFile

_FIELD_LIMIT_CHARS = 1 << 20
_DELIMITERS = ",;\t|"


class _TooLong(Exception):
    """A line is longer than a row may be; the next ones can be read."""


class _Lines:
    """Lines for `csv.reader` that can be handed back, so that an unclosed quote costs one line and not the file."""

    def __init__(self, text: IO[str]) -> None:
        self._text = lines(text)
        self._again: list[str] = []
        self.taken: list[str] = []

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        if line is None:
            raise _TooLong
        self.taken.append(line)
        return line

    def hand_back_all_but_first(self) -> None:
        self._again.extend(reversed(self.taken[1:]))


def read_csv(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    """Rows as dicts by the header's names; a line that does not parse costs itself and no other."""
    csv.field_size_limit(_FIELD_LIMIT_CHARS)
    with open_text(file, facts) as text:
        facts.delimiter = sniff_delimiter(text.read(1 << 16))
    with open_text(file, facts) as text:
        source = _Lines(text)
        reader = csv.reader(source, delimiter=facts.delimiter, strict=True)
        header: list[str] | None = None
        number = 0
        while True:
            source.taken.clear()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except _TooLong:
                number += 1
                yield Row(number, None, "too_large")
                continue
            except csv.Error:
                if header is None:
                    raise FileDamage("bad_header", "the first line has a quote that does not close") from None
                source.hand_back_all_but_first()
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
