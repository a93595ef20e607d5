"""Reads JSON: one value per line, an array, objects one after the other, or an object with arrays somewhere inside."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import ijson  # type: ignore[import-untyped]

from phi3_assets.data.read.json_values import Utf8, loads
from phi3_assets.data.read.limits import JsonGuard, lines, nests_too_deeply
from phi3_assets.data.read.rows import FileDamage, FileFacts, Rank, Row, Section, open_text
from phi3_assets.data.read.sources import SourceFile

_LOOKED_AT = 20
"""Lines, or elements of an array, that show what it holds."""
_MOST_ARRAYS = 200
_BY_COLUMNS = "a table written by columns is to be saved by rows (pandas: to_json(orient='records'))"
_BY_KEY = "*"
"""In a prefix's place: the values of one object, whatever their keys."""


def read_jsonl(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    """One JSON value per line; blank lines are no rows. A file that was only named so is read as JSON."""
    return _read_lines(file, facts) if _is_in_lines(file, facts, rank) else _read_values(file, facts, rank)


def read_json(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    """An array of rows, an object that holds some at any depth, or one object per line after all."""
    with open_text(file, facts) as text:
        each = lines(text)
        first = next((line for line in each if line is None or line.strip()), "")
        more = any(line is None or line.strip() for line in each)
    value = _value(first) if more and first is not None else None
    in_lines = isinstance(value, dict) or (isinstance(value, list) and not any(map(rank, value[:_LOOKED_AT])))
    return _read_lines(file, facts) if in_lines else _read_values(file, facts, rank)


def _value(line: str) -> Any:
    """The value of a line, also one with a comma behind it; None if it has none."""
    text = line.strip()
    for candidate in (text, text.removesuffix(",")):
        if not nests_too_deeply(candidate):
            with suppress(ValueError, RecursionError):  # whoever reads the rows tells it
                return loads(candidate)
    return None


def _is_in_lines(file: SourceFile, facts: FileFacts, rank: Rank) -> bool:
    """Whether lines are values: one of the first lines is an object or a list by itself, but no list of rows."""
    with open_text(file, facts) as text:
        opening = ""
        for line in islice((line for line in lines(text) if line is None or line.strip()), _LOOKED_AT):
            if line is None:
                return not opening and _first_char(file, facts) != "["
            opening = opening or line.strip()[0]
            value = _value(line)
            if isinstance(value, dict):
                return True
            if isinstance(value, list) and value:
                return not any(rank(element) for element in value[:_LOOKED_AT])
    return opening not in ("[", "{")


def _first_char(file: SourceFile, facts: FileFacts) -> str:
    with open_text(file, facts) as text:
        return text.read(1024).strip()[:1]


def _read_lines(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    with open_text(file, facts) as text:
        number = 0
        bracketed = False
        for line in lines(text):
            if line is not None:
                stripped = line.strip()
                if not stripped or (bracketed and stripped in ("]", "],", ",")):
                    continue
                if stripped == "[" and not number:
                    bracketed = True
                    continue
            number += 1
            if line is None or nests_too_deeply(line):
                yield Row(number, None, "too_large" if line is None else "too_deep")
                continue
            try:
                value = loads(line)
            except (ValueError, RecursionError):
                value = _value(line)
                if value is None:
                    yield Row(number, None, "invalid_json")
                    continue
            yield Row(number, value)


@dataclass
class _Outline:
    """What a JSON text is made of, seen from outside.

    Attributes:
        values: Values that stand one after the other; most texts are one.
        opening: Event that the first one begins with.
        arrays: The arrays of objects or of arrays, by ijson's prefix, and how many elements each has.
    """

    values: int = 0
    opening: str = ""
    arrays: dict[str, int] = field(default_factory=dict)


def _read_values(file: SourceFile, facts: FileFacts, rank: Rank) -> Iterator[Row]:
    number = 0
    prefixes = _rows_in(file, facts, rank)
    for prefix in prefixes:
        if len(prefixes) > 1 or prefix not in ("", "item", _BY_KEY):
            name = prefix.removesuffix(".item").removesuffix("item")
            facts.sections.append(Section(name, "array", number + 1, 1))
        try:
            for value in _values(file, facts, prefix):
                number += 1
                yield Row(number, value)
        except FileDamage as damage:
            raise FileDamage(damage.reason, f"{damage.detail} after row {number}") from None
        except (ijson.JSONError, ValueError):
            raise FileDamage("invalid_json", f"it is no valid JSON after row {number}") from None


def _values(file: SourceFile, facts: FileFacts, prefix: str) -> Iterator[Any]:
    """The values at a prefix; the file is closed with the iterator."""
    with open_text(file, facts) as text:
        content = Utf8(text, JsonGuard(row_depth=prefix.count(".") + 1 if prefix else 0))
        if prefix == _BY_KEY:
            yield from (value for _, value in ijson.kvitems(content, "", multiple_values=True))
        else:
            yield from ijson.items(content, prefix, multiple_values=True)


def _rows_in(file: SourceFile, facts: FileFacts, rank: Rank) -> list[str]:
    """Where the rows stand, as ijson's prefixes; one for each array of them.

    Raises:
        FileDamage: It is no JSON, or holds neither a row nor an array of objects.
    """
    if _best(rank, _some(file, facts, "item")) == 2:
        return ["item"]
    outline = _outline(file, facts)
    whole = 0
    if outline.opening == "start_map" or outline.arrays.get("item"):
        whole = _best(rank, _some(file, facts, ""))
    if whole == 2 or (outline.values > 1 and outline.opening == "start_map"):
        return [""]
    if outline.opening == "start_map":
        by_key = [rank(value) for value in _some(file, facts, _BY_KEY)]
        if by_key and all(by_key) and max(by_key) == 2:
            return [_BY_KEY]
        if whole and _is_by_columns(next(_some(file, facts, ""), None)):
            raise FileDamage("by_columns", _BY_COLUMNS)
    ranks: dict[str, int] = {}
    for prefix in outline.arrays:
        if not any(prefix.startswith(f"{found}.") for found, level in ranks.items() if level):
            ranks[prefix] = _best(rank, _some(file, facts, prefix))
    rows = [prefix for prefix, level in ranks.items() if level]
    if not rows and whole:
        return [""]
    facts.is_note = not rows and outline.opening == "start_map"
    rows = rows or sorted(ranks, key=lambda prefix: -outline.arrays[prefix])[:1]
    if not rows:
        raise FileDamage("no_rows", f"it holds no array of objects, one for each row; {_BY_COLUMNS}")
    for prefix in ranks:
        if prefix not in rows and not any(prefix.startswith(f"{each}.") for each in rows):
            first = next((value for value in _some(file, facts, prefix) if isinstance(value, dict)), {})
            facts.left_out[prefix.removesuffix(".item")] = [str(name) for name in first][:8]
    return rows


def _is_by_columns(value: Any) -> bool:
    """Whether an object holds all values of each column, in a list or by the number of the row."""
    columns = list(value.values()) if isinstance(value, dict) else []
    return len(columns) > 1 and all(isinstance(each, list | dict) and len(each) == len(columns[0]) for each in columns)


def _some(file: SourceFile, facts: FileFacts, prefix: str) -> Iterator[Any]:
    """The first values at a prefix; fewer where the text ends, or is none, before."""
    with suppress(FileDamage, ijson.JSONError, ValueError):  # whoever reads the rows tells it
        yield from islice(_values(file, facts, prefix), _LOOKED_AT)


def _best(rank: Rank, values: Iterator[Any]) -> int:
    """The highest rank among some values; no further ones are built than are needed to know it."""
    best = 0
    for value in values:
        best = max(best, rank(value))
        if best == 2:
            break
    return best


def _outline(file: SourceFile, facts: FileFacts) -> _Outline:
    outline = _Outline()
    try:
        with open_text(file, facts) as text:
            for prefix, event, _ in ijson.parse(Utf8(text, JsonGuard()), multiple_values=True):
                if not prefix and event not in ("end_map", "end_array", "map_key"):
                    outline.values += 1
                    outline.opening = outline.opening or event
                # Only what objects hold, or a list of lists: what stands in a row is the row's.
                if event in ("start_map", "start_array") and prefix.endswith("item"):
                    above = prefix.removesuffix("item").removesuffix(".")
                    if ".item." in f".{above}." and above not in ("item", "item.item"):
                        continue
                    if prefix in outline.arrays or len(outline.arrays) < _MOST_ARRAYS:
                        outline.arrays[prefix] = outline.arrays.get(prefix, 0) + 1
    except (ijson.JSONError, ValueError):
        if not outline.arrays:
            raise FileDamage("invalid_json", "it is no valid JSON") from None
    return outline
