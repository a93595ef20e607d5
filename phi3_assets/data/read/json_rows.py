"""Reads JSON: one value per line, an array, or an object that holds one."""

import json
import re
from collections.abc import Iterator
from typing import IO

import ijson  # type: ignore[import-untyped]
import orjson

from phi3_assets.data.read.limits import JsonGuard, lines, nests_too_deeply
from phi3_assets.data.read.rows import FileDamage, FileFacts, Row, open_text
from phi3_assets.data.read.sources import SourceFile

_LONG_NUMBER = re.compile(r"\d{19}")


def read_jsonl(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    """One JSON value per line; blank lines are no rows."""
    with open_text(file, facts) as text:
        number = 0
        for line in lines(text):
            if line is not None and not line.strip():
                continue
            number += 1
            if line is None or nests_too_deeply(line):
                yield Row(number, None, "too_large" if line is None else "too_deep")
                continue
            try:
                # orjson makes whole numbers beyond 64 bits floats.
                value = json.loads(line) if _LONG_NUMBER.search(line) else orjson.loads(line)
            except (ValueError, RecursionError):
                yield Row(number, None, "invalid_json")
                continue
            yield Row(number, value)


def read_json(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    """An array of rows, an object that holds one at any depth, or one object per line after all."""
    with open_text(file, facts) as text:
        each = lines(text)
        first_line = next((line for line in each if line is None or line.strip()), "")
        more = any(line is None or line.strip() for line in each)
    if more and first_line is not None and _is_json(first_line):
        yield from read_jsonl(file, facts)
        return
    with open_text(file, facts) as text:
        prefix = _array_prefix(text)
    number = 0
    with open_text(file, facts) as text:
        try:
            guard = JsonGuard(row_depth=prefix.count(".") + 2 if prefix else 1)
            for value in ijson.items(_Utf8(text, guard), f"{prefix}.item" if prefix else "item"):
                number += 1
                yield Row(number, value)
        except FileDamage as damage:
            raise FileDamage(damage.reason, f"{damage.detail} after row {number}") from None
        except ijson.JSONError:
            raise FileDamage("invalid_json", f"it is no valid JSON after row {number}") from None


class _Utf8:
    """ijson reads UTF-8 bytes; files come in other encodings too, and some are made to harm."""

    def __init__(self, text: IO[str], guard: JsonGuard) -> None:
        self._text = text
        self._guard = guard

    def read(self, size: int) -> bytes:
        piece = self._text.read(size).encode()
        self._guard.check(piece)
        return piece


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
        for prefix, event, _ in ijson.parse(_Utf8(text, JsonGuard())):
            if event == "start_array":
                array = prefix
            elif array is not None and event == "start_map" and prefix == (f"{array}.item" if array else "item"):
                return array
    except ijson.JSONError:
        raise FileDamage("invalid_json", "it is no valid JSON") from None
    raise FileDamage("no_rows", "it holds no array of objects")
