"""Which text encoding a file has: byte order mark, else proof by decoding, else the likeliest of the older ones.

What is likely is judged by `legacy`; here stands what can be proved.
"""

import codecs
import re
from collections.abc import Iterable
from typing import NamedTuple

from phi3_assets.data.read.legacy import guess

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
_TELLING_LINE = re.compile(rb"[^\r\n]*[\x80-\xff][^\r\n]*[\r\n]?")


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
    sample = bytearray()
    for chunk in chunks:
        if first and chunk:
            first = False
            name = _from_mark(chunk) or _utf16_without_mark(chunk)
            if name:
                return Encoding(name)
        text = decoder.decode(chunk)
        if not text.isascii():
            escaped = sum("\udc80" <= char <= "\udcff" for char in text)
            bad += escaped
            good += sum(char > "\x7f" for char in text) - escaped
            if escaped and len(sample) < _SAMPLE_BYTES:
                _add_sample(sample, chunk)
    bad += len(decoder.decode(b"", final=True))
    if good and good >= bad * (_DAMAGE if said else 1):
        return Encoding("utf-8")
    if said:
        return Encoding(said)
    return Encoding(*guess(bytes(sample))) if bad else Encoding("utf-8")


def _add_sample(sample: bytearray, chunk: bytes) -> None:
    """Lines that are more than ASCII say the most; a line without end is cut."""
    for match in _TELLING_LINE.finditer(chunk):
        sample += match[0][: _SAMPLE_BYTES - len(sample)]
        if len(sample) >= _SAMPLE_BYTES:
            return


def _from_mark(chunk: bytes) -> str | None:
    return next((name for mark, name in _BOMS if chunk.startswith(mark)), None)


def _utf16_without_mark(chunk: bytes) -> str | None:
    """Latin text in UTF-16 has a zero in every other byte; text in an 8-bit encoding has none."""
    head = chunk[: len(chunk) // 2 * 2][:4096]
    if len(head) < 4:
        return None
    half = len(head) // 2
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if odd > half * 0.4 and even < half * 0.1:
        return "utf-16-le"
    if even > half * 0.4 and odd < half * 0.1:
        return "utf-16-be"
    return None
