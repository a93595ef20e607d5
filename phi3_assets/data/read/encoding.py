"""Which text encoding a file has: byte order mark, else proof by decoding, else the likeliest of the older ones.

What is likely is judged by `legacy`; here stands what can be proved. Text in Unicode's own wide encodings holds zeros,
text in any other holds none; some encodings of mail hold nothing beyond ASCII, and pass for it.
"""

import codecs
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from phi3_assets.data.read.legacy import guess, guess_shifted

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE_BYTES = 1 << 15
_DAMAGE = 10
"""Valid characters for each bad byte that make a file damaged UTF-8 even where the recipe says another encoding."""
_WIDE_BYTES = 1 << 16
_SEPARATORS = np.frombuffer(b'\n\r\t ,"', np.uint8)
"""With a zero behind, or before, no letter that anybody writes; and there are some in every text."""
_SHIFT = re.compile(rb"\x1b\$|~\{|\+[A-Za-z0-9+/]{3,255}[^A-Za-z0-9+/]")
"""How what is no ASCII begins in ISO 2022, in HZ, and how it stands in UTF-7."""
_SHIFTING = re.compile(rb"[+~\x1b]")


class Encoding(NamedTuple):
    """How the text of a file is encoded.

    Attributes:
        name: Python's name of the encoding.
        certainty: None where it is known: by a mark, by proof, or by the recipe. Else how likely it is, 0 to 1.
    """

    name: str
    certainty: float | None = None


def detect_encoding(chunks: Iterable[bytes], said: str = "") -> Encoding:
    """Find the encoding of a text given as chunks of bytes; reads them all, because a bad byte may come last.

    A file that is UTF-8 but for a few bytes stays UTF-8, so that only the rows with those bytes are quarantined: that
    is the case when it holds at least as many valid multi-byte characters as bad bytes.

    Args:
        chunks: The whole file, in pieces.
        said: What a file has that is neither marked nor UTF-8 beyond ASCII, by the recipe; "": nothing is said.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = 0
    first = True
    sample, shifted = bytearray(), bytearray()
    for chunk in chunks:
        if first and chunk:
            first = False
            name = _from_mark(chunk) or _wide_without_mark(chunk)
            if name:
                return Encoding(name)
        if chunk.isascii() and len(shifted) < _SAMPLE_BYTES and _SHIFT.search(chunk):
            lines = filter(_SHIFTING.search, chunk.splitlines(keepends=True))
            shifted += b"".join(lines)[:_SAMPLE_BYTES].rpartition(b"\n")[0] + b"\n"
        text = decoder.decode(chunk)
        if not text.isascii():
            escaped = sum("\udc80" <= char <= "\udcff" for char in text)
            bad += escaped
            good += sum(char > "\x7f" for char in text) - escaped
            if escaped and len(sample) < _SAMPLE_BYTES:
                _add_sample(sample, chunk)
    bad += len(decoder.decode(b"", final=True))
    if shifted and not good and not bad and (found := guess_shifted(bytes(shifted), said)):
        return Encoding(*found)
    if good and good >= bad * (_DAMAGE if said else 1):
        return Encoding("utf-8")
    if said:
        return Encoding(said)
    return Encoding(*guess(bytes(sample))) if bad else Encoding("utf-8")


def _add_sample(sample: bytearray, chunk: bytes) -> None:
    """Lines that are more than ASCII say the most; a line without end is cut."""
    for line in chunk.splitlines(keepends=True):
        if not line.isascii():
            sample += line[: _SAMPLE_BYTES - len(sample)]


def _from_mark(chunk: bytes) -> str | None:
    return next((name for mark, name in _BOMS if chunk.startswith(mark)), None)


def _wide_without_mark(chunk: bytes) -> str | None:
    """UTF-16 or UTF-32, in either order of bytes, by where zeros stand; None: it is neither."""
    head = chunk[: len(chunk) // 4 * 4][:_WIDE_BYTES]
    if b"\0" not in head:
        return None
    by_four = np.frombuffer(head, np.uint8).reshape(-1, 4)
    if not by_four[:, 3].any() and by_four[:, 2].max() <= 0x10:
        return "utf-32-le"
    if not by_four[:, 0].any() and by_four[:, 1].max() <= 0x10:
        return "utf-32-be"
    first, second = np.frombuffer(head, np.uint8).reshape(-1, 2).T
    leading, following = np.isin(first, _SEPARATORS), np.isin(second, _SEPARATORS)
    little, big = int((leading & (second == 0)).sum()), int((following & (first == 0)).sum())
    name = "utf-16-le" if little > big else "utf-16-be"
    # In other text with a stray zero in it most separators have none beside them.
    is_told = 2 * max(little, big) > int(leading.sum() + following.sum())
    return name if is_told and _decodes(head, name) else None


def _decodes(head: bytes, name: str) -> bool:
    try:
        codecs.getincrementaldecoder(name)().decode(head)
    except UnicodeDecodeError:
        return False
    return True
