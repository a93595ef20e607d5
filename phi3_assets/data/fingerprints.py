"""Numbers that stand for texts, made for many texts at once: hashes for equality, MinHash sketches for likeness.

Everything here is a pure function of the text, equal on every machine: the split and the cache depend on it.
"""

import hashlib
from collections.abc import Iterable
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rensa  # type: ignore[import-untyped]
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

PERMUTATIONS = 32
BANDS = 8
"""Texts that share a band of PERMUTATIONS / BANDS minima are compared: 98 % of pairs at 0.8, 99.7 % at 0.85."""
_SHINGLE_BYTES = 5
_WINDOWS_AT_ONCE = 1 << 16
_SEED = 1
_AT_ONCE = 1 << 17
_EDGES = " .?!,;:…\"'()"


def normalise(texts: pa.Array) -> pa.Array:
    """Texts without what does not make another question: case, runs of spaces, punctuation at the ends.

    Symbols within stay: 'C++' and 'C#', '1.5' and '15' are different.
    """
    plain = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
    # Single spaces are left alone: to replace them too would take longer than all the rest.
    plain = pc.replace_substring_regex(plain, pattern=r"[\s\pZ]{2,}|[^\S ]|[^\PZ ]", replacement=" ")
    trimmed = pc.utf8_trim(plain, characters=_EDGES)
    # A text of nothing but punctuation stands for itself.
    return pc.if_else(pc.equal(pc.binary_length(trimmed), 0), plain, trimmed)


def digests(texts: Iterable[str]) -> list[bytes]:
    """SHA-256 of each text."""
    sha256 = hashlib.sha256
    return [sha256(text.encode()).digest() for text in texts]


def as_hashes(digests: list[bytes]) -> Hashes:
    """The first 8 bytes of each digest, as a number."""
    joined = b"".join([digest[:8] for digest in digests])
    return np.frombuffer(joined, dtype=">u8").astype(np.uint64)


def sketch(questions: pa.Array, answers: pa.Array) -> tuple[NDArray[np.uint8], Hashes]:
    """MinHash of pairs of normalised texts.

    A band is that of question and answer together, whose likeness is at least the lesser of the two, and of the digits
    in both: 'code 403' and 'code 404' are other facts, however alike the sentences around them.

    Returns:
        The low byte of each minimum of the question and of the answer, shape (rows, 2, PERMUTATIONS), and a hash of
        each band, shape (BANDS, rows).
    """
    rows = len(questions)
    if not rows:
        return np.zeros((0, 2, PERMUTATIONS), np.uint8), np.zeros((BANDS, 0), np.uint64)
    minima = np.stack([_minima(questions, 0), _minima(answers, 1)], axis=1)
    numbers = pc.binary_join_element_wise(_digits(questions), _digits(answers), "|")
    together = minima.min(axis=1).astype(np.uint64)
    bands = np.tile(mix(as_hashes(digests(numbers.to_pylist()))), (BANDS, 1))
    per_band = PERMUTATIONS // BANDS
    for i in range(PERMUTATIONS):
        bands[i // per_band] = mix(bands[i // per_band] ^ together[:, i])
    return minima.astype(np.uint8), bands


def _digits(texts: pa.Array) -> pa.Array:
    """What is left of texts without all that is no digit."""
    return pc.utf8_trim(pc.replace_substring_regex(texts, pattern=r"\PN+", replacement=" "), characters=" ")


def _minima(texts: pa.Array, kind: int) -> NDArray[np.uint32]:
    """MinHash of each text's shingles, shape (rows, PERMUTATIONS); shingles of different kinds are never equal."""
    # Padding gives every text, however short, as many shingles as it has bytes.
    padded = pc.binary_join_element_wise(texts.cast(pa.binary()), b"\0" * (_SHINGLE_BYTES - 1), b"")
    offsets = np.frombuffer(padded.buffers()[1], np.int32)[: len(texts) + 1].astype(np.int64)
    data = np.frombuffer(padded.buffers()[2] or b"", np.uint8)[: offsets[-1]]
    inside = np.ones(len(data), bool)
    for i in range(1, _SHINGLE_BYTES):
        inside[offsets[1:] - i] = False
    counts = np.diff(offsets) - (_SHINGLE_BYTES - 1)
    hashes = np.empty(int(counts.sum()), np.uint64)
    # The 8 bytes from each byte on, read where they stand; some at a time, which stay in the core's cache.
    eights = np.ndarray(len(data), "<u8", np.append(data, np.zeros(7, np.uint8)), strides=(1,))
    done = 0
    for start in range(0, len(data), _WINDOWS_AT_ONCE):
        windows = eights[start : start + _WINDOWS_AT_ONCE][inside[start : start + _WINDOWS_AT_ONCE]]
        windows &= np.uint64((1 << 8 * _SHINGLE_BYTES) - 1)
        windows |= np.uint64(kind << 63)
        hashes[done : done + len(windows)] = mix(windows)
        done += len(windows)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        hashes, np.concatenate([[0], np.cumsum(counts)]).astype(np.uint64), PERMUTATIONS, _SEED
    )
    return np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), PERMUTATIONS)


def likeness(one: str, other: str) -> float:
    """Jaccard index of the shingles of two normalised texts, 0 to 1: what the sketches estimate."""
    left, right = _shingles(one), _shingles(other)
    return len(left & right) / len(left | right)


def _shingles(text: str) -> set[bytes]:
    data = text.encode() + b"\0" * (_SHINGLE_BYTES - 1)
    return {data[i : i + _SHINGLE_BYTES] for i in range(max(1, len(data) - _SHINGLE_BYTES + 1))}


def mix(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64: neighbouring values become far apart."""
    mixed = values >> np.uint64(30)
    mixed ^= values
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    shifted = mixed >> np.uint64(27)
    mixed ^= shifted
    mixed *= np.uint64(0x94D049BB133111EB)
    np.right_shift(mixed, np.uint64(31), out=shifted)
    mixed ^= shifted
    return mixed


class Lookup:
    """Hashes among which others are looked for, again and again: what that takes is prepared once."""

    def __init__(self, wanted: Hashes) -> None:
        self.wanted = wanted
        self._bits = min(24, max(16, len(wanted).bit_length() + 4))

    def find(self, values: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which values are among them, and where each of these stands there, the first time.

        Few of either are looked at twice, and some at a time: what is made on the way stays in the cores' caches.
        """
        maybe = [np.zeros(0, np.int64)]
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            places = np.flatnonzero(_marked(self._upper, some))
            places = places[_marked(self._lower, _turned(some[places]))]
            maybe.append(places + start)
        places = np.concatenate(maybe)
        candidates = values[places]
        numbers = np.flatnonzero(_begin_like(self.wanted, candidates)) if len(places) else places
        if not len(numbers):
            return numbers, numbers
        numbers = numbers[np.argsort(self.wanted[numbers], kind="stable")]
        ordered = self.wanted[numbers]
        near = np.minimum(np.searchsorted(ordered, candidates), len(ordered) - 1)
        found = ordered[near] == candidates
        return places[found], numbers[near[found]]

    def among(self, values: Hashes) -> NDArray[np.bool_]:
        """Which values are among them: numpy's isin, several times faster."""
        result = np.zeros(len(values), bool)
        result[self.find(values)[0]] = True
        return result

    @cached_property
    def _upper(self) -> NDArray[np.bool_]:
        return _marks(self.wanted, self._bits)

    @cached_property
    def _lower(self) -> NDArray[np.bool_]:
        return _marks(_turned(self.wanted), self._bits)


def positions(values: Hashes, wanted: Hashes) -> NDArray[np.int64]:
    """Where each value stands in `wanted`, the first time; -1: nowhere."""
    found, where = Lookup(wanted).find(values)
    result = np.full(len(values), -1)
    result[found] = where
    return result


def among(values: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Which values are among the wanted."""
    return Lookup(wanted).among(values)


def _turned(values: Hashes) -> Hashes:
    """The lower halves of hashes where the upper ones were: other bits to look at."""
    return values << np.uint64(32)


def _begin_like(values: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Which values begin like one of the wanted: all that are among them, and few of the others."""
    return _marked(_marks(wanted, min(24, max(16, len(wanted).bit_length() + 4))), values)


def _marks(wanted: Hashes, bits: int) -> NDArray[np.bool_]:
    """Of each beginning of so many bits, whether one of the wanted has it."""
    begun = np.zeros(1 << bits, bool)
    begun[(wanted >> np.uint64(64 - bits)).view(np.int64)] = True
    return begun


def _marked(marks: NDArray[np.bool_], values: Hashes) -> NDArray[np.bool_]:
    shift = np.uint64(64 - (len(marks).bit_length() - 1))
    return marks.take((values >> shift).view(np.int64))


def halves(values: Hashes) -> NDArray[np.uint32]:
    """The upper halves of hashes, sorted; of several such lists together `shared` knows soon what may repeat."""
    return np.sort((values >> np.uint64(32)).astype(np.uint32))


def shared(values: Hashes, runs: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which values stand there more than once.

    Args:
        values: The hashes.
        runs: `halves` of them, or of parts of them, end to end.
    """
    ordered = np.sort(runs, kind="stable")  # merges what is sorted already
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    found = _begin_like(values, repeated.astype(np.uint64) << np.uint64(32))
    rows = np.flatnonzero(found)
    candidates = np.sort(values[rows])
    found[rows] = among(values[rows], candidates[1:][candidates[1:] == candidates[:-1]])
    return found
