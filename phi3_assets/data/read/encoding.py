"""Which text encoding a file has: byte order mark, else proof by decoding, else the likelier of UTF-8 and cp1252."""

import codecs
from collections.abc import Iterable

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16: its mark begins with UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def detect_encoding(chunks: Iterable[bytes]) -> str:
    """Name the encoding of a text given as chunks of bytes; reads them all, because a bad byte may come last.

    A file that is UTF-8 but for a few bytes stays UTF-8, so that only the rows with those bytes are quarantined: that
    is the case when it holds at least as many valid multi-byte characters as bad bytes. Otherwise it is cp1252.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    good = bad = 0
    first = True
    for chunk in chunks:
        if first and chunk:
            first = False
            guess = _from_mark(chunk) or _utf16_without_mark(chunk)
            if guess:
                return guess
        text = decoder.decode(chunk)
        if not text.isascii():
            escaped = sum("\udc80" <= char <= "\udcff" for char in text)
            bad += escaped
            good += sum(char > "\x7f" for char in text) - escaped
    bad += len(decoder.decode(b"", final=True))
    return "cp1252" if bad > good else "utf-8"


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
