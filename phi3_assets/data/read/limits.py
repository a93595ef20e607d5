"""How deep and how large a row may be, so that no file can take the machine: seen before a parser builds anything."""

import re
from collections.abc import Iterator
from typing import IO

import numpy as np

from phi3_assets.data.read.rows import FileDamage

MAX_DEPTH = 64
"""Deepest nesting of arrays and objects; a conversation needs four levels."""
MAX_ROW_CHARS = 4 << 20
"""Longest row, in characters; a long book has two million."""
MAX_UNPACKED_BYTES = 2 << 30
"""Largest parquet or arrow file in gzip, unpacked: these are read in jumps, so it stands in memory."""

MAX_SHEET_TEXT_BYTES = 256 << 20
"""Most text of a spreadsheet, unpacked: all of it stands in memory while it is read."""

MAX_DIGITS = 1000
"""Longest number. Python converts none of more than 4300 digits, and upon one ijson's C parser ends the process."""

_MANY_DIGITS = re.compile(rb"[0-9]{%d}" % MAX_DIGITS)
_DROP = bytes(byte for byte in range(256) if byte not in b'[]{}"')
_STEP = np.zeros(256, np.int64)
_STEP[[ord("["), ord("{")]] = 1
_STEP[[ord("]"), ord("}")]] = -1


class JsonGuard:
    """Follows JSON text, piece by piece, and refuses it where it nests too deeply or a row does not end.

    ijson keeps the path to every level, so 200 KB of "[" took 17.7 GiB; its C parser has no limit of its own.

    Args:
        row_depth: Depth at which rows lie; their length is measured. None: each string's and number's length is.
    """

    def __init__(self, row_depth: int | None = None) -> None:
        self._row_depth = row_depth
        self._depth = 0
        self.in_string = False
        self._backslash = b""
        self._open_chars = 0

    def check(self, piece: bytes) -> None:
        """Take the next piece; of thousands of characters, so that most of a number that is too long is in one.

        Raises:
            FileDamage: too_deep or too_large.
        """
        # In this order what is left of `\\\\"` is a quote that closes, of `\\"` nothing. Only the outline stays.
        text = (self._backslash + piece).replace(b"\\\\", b"")
        self._backslash = b"\\" if text.endswith(b"\\") else b""
        # Two quotes side by side change nothing, in a string or out of it; without them few pieces are left.
        unescaped = text.replace(b'\\"', b"")
        if _MANY_DIGITS.search(piece) and any(map(_MANY_DIGITS.search, unescaped.split(b'"')[self.in_string :: 2])):
            raise FileDamage("too_large", f"a number has more than {MAX_DIGITS} digits")
        quoted = unescaped.translate(None, _DROP)
        parts = quoted.replace(b'""', b"").split(b'"')
        outline = b"".join(parts[self.in_string :: 2])
        self.in_string ^= len(parts) % 2 == 0
        lowest = self._depth
        if outline:
            depths = self._depth + np.cumsum(_STEP[np.frombuffer(outline, np.uint8)])
            lowest = min(lowest, int(depths.min()))
            self._depth = int(depths[-1])
            if depths.max() > MAX_DEPTH:
                raise FileDamage("too_deep", f"it nests deeper than {MAX_DEPTH} levels")
        ended = bool(quoted) if self._row_depth is None else lowest <= self._row_depth
        self._open_chars = len(piece) if ended else self._open_chars + len(piece)
        if self._open_chars > MAX_ROW_CHARS:
            raise FileDamage("too_large", f"a row is longer than {MAX_ROW_CHARS >> 20} million characters")


def nests_too_deeply(line: str) -> bool:
    """Whether a JSON value on one line is deeper than `MAX_DEPTH`; without brackets enough it is cheap to say no."""
    if line.count("[") + line.count("{") <= MAX_DEPTH:
        return False
    try:
        JsonGuard(0).check(line.encode("utf-8", "replace"))
    except FileDamage:
        return True
    return False


def lines(text: IO[str]) -> Iterator[str | None]:
    """Lines of a text; None for one longer than `MAX_ROW_CHARS`, of which no more than that is ever held."""
    while line := text.readline(MAX_ROW_CHARS):
        whole = True
        while len(line) == MAX_ROW_CHARS and not line.endswith("\n"):
            whole = False
            line = text.readline(MAX_ROW_CHARS)
        yield line if whole else None
