"""Questions as sequences of words, for a likeness that holds for short ones: what a word more or less makes of them.

The Jaccard index of shingles falls below any useful threshold when a question of six words gets a seventh. Here each
word is a number, and a sequence a hash from which any single word can be taken out by arithmetic.
"""

import hashlib
from functools import lru_cache
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import Hashes, mix

_EDGES = " .?!,;:…\"'()[]{}<>`*"
_FILLERS = """
a an the please kindly just really actually exactly simply i we you me us my our your do does did is are was were am be
been can could would will shall should may might tell
"""
"""Words without which a question asks the same."""
_NEGATIONS = """
not no never none nothing nobody neither nor cannot without except nicht kein keine keinen keiner nie niemals ohne ne
pas jamais sans nunca sin non senza niet geen
"""
_GREETINGS = """
hi hello hey hiya howdy greetings there good morning afternoon evening day thanks thank ok okay yes hallo guten morgen
tag abend moin servus grüezi danke bonjour salut bonsoir merci hola buenos buenas dias días tardes gracias ciao salve
buongiorno grazie olá ola bom dia obrigado hoi goedemorgen dank dzień dobry cześć ahoj привет здравствуйте 你好 您好 嗨
こんにちは 안녕하세요
"""
GREETING_WORDS = frozenset(_GREETINGS.split())
_FILLER_WORDS, _NEGATION_WORDS = frozenset(_FILLERS.split()), frozenset(_NEGATIONS.split())
FIXED = 0x8000
"""Flag of a word that makes another fact of a question: one with a digit, or a negation."""
LEAST_COMMON = 3
"""Words that two questions must share, fillers aside, for another word to be an addition and not the matter itself."""
_SUFFIXES = ("s", "es", "ed", "ing", "'s")
_TYPO_CHARS = 6
_STEM_CHARS = 3
_BASE = 0x9E3779B97F4A7C15
_INVERSE = pow(_BASE, -1, 2**64)


class Words(NamedTuple):
    """The words of questions end to end, fillers left out.

    Attributes:
        counts: Words of each question.
        words: A hash of each word.
        stems: A hash of how it begins, 0 if no other word is a misspelling of it; and `FIXED`.
    """

    counts: NDArray[np.int32]
    words: NDArray[np.uint32]
    stems: NDArray[np.uint16]


def words_of(questions: pa.Array) -> Words:
    """The words of normalised questions."""
    lists = pc.split_pattern(questions, " ")
    flat = lists.flatten().dictionary_encode()
    known = [_word(text) for text in flat.dictionary.to_pylist()]
    codes = flat.indices.to_numpy()
    kept = np.array([each is not None for each in known], bool)[codes] if len(codes) else np.zeros(0, bool)
    numbers = np.array([each or (0, 0) for each in known], np.uint32).reshape(-1, 2)
    offsets = lists.offsets.to_numpy()
    before = np.concatenate([[0], np.cumsum(kept)])
    counts = np.diff(before[offsets - offsets[0]]).astype(np.int32)
    return Words(counts, numbers[codes[kept], 0], numbers[codes[kept], 1].astype(np.uint16))


@lru_cache(maxsize=200_000)
def _word(text: str) -> tuple[int, int] | None:
    word = text.strip(_EDGES)
    if not word or word in _FILLER_WORDS:
        return None
    digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
    fixed = FIXED if word in _NEGATION_WORDS or word.endswith("n't") or any(map(str.isnumeric, word)) else 0
    stem = 0
    if word.isalpha() and len(word) > _STEM_CHARS:
        beginning = hashlib.blake2b(word[:_STEM_CHARS].encode(), digest_size=2).digest()
        stem = (int.from_bytes(beginning, "big") & (FIXED - 1)) or 1
    return int.from_bytes(digest, "big"), fixed | stem


class Hashed(NamedTuple):
    """Hashes of questions as sequences of words, of which equal ones are looked for. 0 is nothing to look for.

    Attributes:
        counts: Words of each question.
        whole: One for each question of two words or more.
        without: One for each word: the question without it, where it would still be near.
        spelt: One for each word: the question without it, and how it begins, where another spelling would be near.
    """

    counts: NDArray[np.int32]
    whole: Hashes
    without: Hashes
    spelt: Hashes


def hashed(questions: pa.Array) -> Hashed:
    """Hashes of normalised questions; the order counts: 'from PDF to Word' is not 'from Word to PDF'."""
    words = words_of(questions)
    counts = words.counts.astype(np.int64)
    row_of = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    powers = np.ones(int(counts.max(initial=0)) + 1, np.uint64)
    powers[1:] = _BASE
    powers = np.cumprod(powers, dtype=np.uint64)
    terms = mix(words.words.astype(np.uint64)) * powers[np.arange(len(row_of)) - starts[row_of]]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(terms, dtype=np.uint64)])
    whole = sums[starts + counts] - sums[starts]
    head = sums[:-1] - sums[starts[row_of]]
    tail = whole[row_of] - head - terms
    without = head + tail * np.uint64(_INVERSE)
    free = words.stems & FIXED == 0
    spelt = mix(without ^ mix(words.stems.astype(np.uint64)))
    spelt[~free | (words.stems == 0) | (counts[row_of] < LEAST_COMMON)] = 0
    without[~free | (counts[row_of] <= LEAST_COMMON)] = 0
    whole[counts < 2] = 0
    return Hashed(words.counts, whole, without, spelt)


def same_but_for_spelling(one: str, other: str) -> bool:
    """Whether two normalised questions differ in one word, and that is the same word: a slip, a plural, a tense."""
    pairs = [(a, b) for a, b in zip_longest(content_words(one), content_words(other)) if a != b]
    if len(pairs) != 1 or None in pairs[0]:
        return False
    short, long = sorted(pairs[0], key=len)
    if long.startswith(short) and long[len(short) :] in _SUFFIXES:
        return True
    return len(short) >= _TYPO_CHARS and short[:_STEM_CHARS] == long[:_STEM_CHARS] and _one_slip(short, long)


def content_words(text: str) -> list[str]:
    """The words of a normalised text, fillers left out."""
    stripped = (word.strip(_EDGES) for word in text.split(" "))
    return [word for word in stripped if word and word not in _FILLER_WORDS]


def _one_slip(short: str, long: str) -> bool:
    """One letter more, less or other, or two that changed places; `short` is not the longer one."""
    start = 0
    while start < len(short) and short[start] == long[start]:
        start += 1
    a, b = short[start:], long[start:]
    if len(a) < len(b):
        return a == b[1:]
    return a[1:] == b[1:] or (a[:2] == b[1::-1] and a[2:] == b[2:])
