"""Reads JSON: one value per line, an array, or an object that holds one."""

import json
import re
from collections.abc import Iterator
from typing import IO

import ijson  # type: ignore[import-untyped]
import orjson

from phi3_assets.data.read.rows import FileDamage, FileFacts, Row, open_text
from phi3_assets.data.read.sources import SourceFile

_LONG_NUMBER = re.compile(r"\d{19}")


def read_jsonl(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    """One JSON value per line; blank lines are no rows."""
    with open_text(file, facts) as text:
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


def read_json(file: SourceFile, facts: FileFacts) -> Iterator[Row]:
    """An array of rows, an object that holds one at any depth, or one object per line after all."""
    with open_text(file, facts) as text:
        first_line = next((line for line in text if line.strip()), "")
        more = any(line.strip() for line in text)
    if more and _is_json(first_line):
        yield from read_jsonl(file, facts)
        return
    with open_text(file, facts) as text:
        prefix = _array_prefix(text)
    number = 0
    with open_text(file, facts) as text:
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
