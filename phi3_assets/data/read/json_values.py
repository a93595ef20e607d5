"""JSON as it is written in the wild: NaN, halves of surrogate pairs, a comma too many. One meaning, whoever parses it.

Python writes NaN where a table had nothing, and parsers make a float, an error or "nan" of it; half of a pair becomes
"?", an error or a string that cannot be stored. Here NaN and infinities are null, and half a pair is U+FFFD, the mark
of text that did not decode.
"""

import json
import re
from typing import IO, Any

import orjson

from phi3_assets.data.read.limits import JsonGuard

_DIGIT = re.compile(r"\d")
_LONG_NUMBER = re.compile(r"\d{19}")
_ESCAPED = re.compile(r"\\\\|\\u[dD][89aAbB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})")
_OUTSIDE = re.compile(r'"(?:[^"\\]|\\.)*"?|(-?Infinity|NaN)', re.DOTALL)
_REST_OF_STRING = re.compile(r'(?:[^"\\]|\\.)*"?', re.DOTALL)
_UNFINISHED = re.compile(r"\\.{0,11}$|[-A-Za-z]{1,16}$", re.DOTALL)
_MOST_MORE_CHARS = 1 << 16


def loads(text: str) -> Any:
    """Parse one JSON value.

    Raises:
        ValueError: It is none.
        RecursionError: It nests too deeply.
    """
    # orjson makes whole numbers beyond 64 bits floats. Of 19 digits in a row one is among every 19th character.
    if not _DIGIT.search(text[::19]) or not _LONG_NUMBER.search(text):
        try:
            return orjson.loads(text)
        except ValueError:
            pass  # NaN, half a pair, or no JSON
    if "\\ud" in text or "\\uD" in text:
        text = _whole_pairs(text)
    return json.loads(text, parse_constant=lambda _: None)


def is_json(line: str) -> bool:
    """Whether a line is an object or an array, or opens one."""
    try:
        return line.strip() in ("{", "[") or isinstance(loads(line.strip().removesuffix(",")), dict | list)
    except (ValueError, RecursionError):
        return False


def _whole_pairs(text: str) -> str:
    return _ESCAPED.sub(lambda match: "\\ufffd" if match[1] else match[0], text)


class Utf8:
    """Text as the UTF-8 bytes that ijson reads, guarded, with NaN and halves of pairs replaced."""

    def __init__(self, text: IO[str], guard: JsonGuard) -> None:
        self._text = text
        self._guard = guard

    def read(self, size: int) -> bytes:
        """About `size` characters; a few more where a number, a word or an escape would be cut in two."""
        piece = self._text.read(size)
        more = 0
        while piece and more < _MOST_MORE_CHARS and _UNFINISHED.search(piece[-20:]):
            following = self._text.read(16)
            if not following:
                break
            piece += following
            more += len(following)
        if "\\ud" in piece or "\\uD" in piece:
            piece = _whole_pairs(piece)
        if "NaN" in piece or "Infinity" in piece:
            piece = self._without_nan(piece)
        content = piece.encode()
        self._guard.check(content)
        return content

    def _without_nan(self, piece: str) -> str:
        start = 0
        if self._guard.in_string:
            rest = _REST_OF_STRING.match(piece)
            start = rest.end() if rest else 0
        return piece[:start] + _OUTSIDE.sub(lambda match: "null" if match[1] else match[0], piece[start:])
