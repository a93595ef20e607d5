"""How a delimited text is written: its delimiter, and what quotes mean in it."""

import csv
import io
import re
from typing import NamedTuple

DELIMITERS = ",;\t|"
_SAID = re.compile(r"sep=(.)\s*")
"""What Excel writes above the header, for itself to read."""
_BACKSLASH_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')
_JUDGED_LINES = 500
_WHOLLY_QUOTED = re.compile(r'"(?:[^"]|"")*"\s*', re.DOTALL)


class Dialect(NamedTuple):
    """How a delimited text is written.

    Attributes:
        delimiter: One character.
        quotes: "doubled": a field in quotes, a quote in it twice; "backslash": a quote in it has a backslash before it;
            "none": quotes are text.
        said: Whether the first line says the delimiter and is no row.
    """

    delimiter: str
    quotes: str = "doubled"
    said: bool = False


def undo_backslashes(line: str) -> str:
    r"""A line with `\"` for a quote as one with `""`; other backslashes are text."""
    return _BACKSLASH_QUOTE.sub(r'\1""', line)


def sniff(sample: str, *, whole: bool) -> Dialect:
    """Find the dialect by the first lines of a text.

    Args:
        sample: The text's beginning.
        whole: Whether it is the whole text; else it may end within quotes.
    """
    first, _, rest = sample.partition("\n")
    said = _SAID.fullmatch(first.strip("\ufeff"))
    if said:
        sample, delimiter = rest, said[1]
    else:
        delimiter = _delimiter(sample)
    # Only where quotes as they should be do badly are others looked for, and none wins a draw.
    best = min(("doubled", "backslash", "none"), key=lambda quotes: _misfits(sample, delimiter, quotes, whole))
    return Dialect(delimiter, best, said is not None)


def _delimiter(sample: str) -> str:
    """The delimiter that cuts the sample's lines into equally many fields, most of them; a comma if none does."""
    best = (0, ",")
    for delimiter in DELIMITERS:
        counts: list[int] = []
        try:
            for fields in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter):
                if fields:
                    counts.append(len(fields))
        except csv.Error:
            pass  # the sample may end within quotes
        usual = max(set(counts), key=counts.count) if counts else 0
        if counts and counts[0] > 1:
            usual = counts[0]  # the header decides, if it is one
        if usual > 1:
            # One more agreeing row counts more than one more field.
            best = max(best, (counts.count(usual), delimiter), key=lambda pair: pair[0])
    return best[1]


def _misfits(sample: str, delimiter: str, quotes: str, whole: bool) -> int:
    """Lines that do not read well: a quote astray, or another number of fields than usual."""
    if '"' not in sample or (quotes == "backslash" and '\\"' not in sample):
        return 0 if quotes == "doubled" else 1
    lines = sample.splitlines(keepends=True)
    lines = (lines if whole else lines[:-1])[:_JUDGED_LINES]
    counts: list[int] = []
    bad = 0
    if quotes == "none":
        for line in lines:
            fields = line.rstrip("\r\n").split(delimiter)
            counts.append(len(fields))
            bad += any(_WHOLLY_QUOTED.fullmatch(field) for field in fields)
    else:
        waiting = [undo_backslashes(line) if quotes == "backslash" else line for line in lines][::-1]
        while waiting:
            taken: list[str] = []

            def following(taken: list[str] = taken) -> str:
                taken.append(waiting.pop())
                return taken[-1]

            try:
                fields = next(csv.reader(iter(following, None), delimiter=delimiter, strict=True))
                if fields:
                    counts.append(len(fields))
            except (csv.Error, IndexError, RuntimeError):
                bad += 1
                waiting.extend(reversed(taken[1:]))
                if not waiting:
                    break
    usual = max(set(counts), key=counts.count) if counts else 0
    return bad + sum(count != usual for count in counts)
