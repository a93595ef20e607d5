"""Training rows whose question is that of a test row but for a word: they would make a score one of memory.

The question alone decides, whatever the answer. Near are questions with the same words but for fillers ('please'), with
one word more or less that is no negation and holds no digit, or with one word spelt otherwise. Another word in its
place is another fact: 'code 403' and 'code 404', 'enable' and 'disable', 'upload' and 'unload'.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import Hashes, among, mix, positions
from phi3_assets.data.judge.words import FIXED, LEAST_COMMON, Sequences, Words, same_but_for_spelling, sequences

_ROWS_AT_ONCE = 200_000
_SPELLINGS_PER_WORD = 4


def find_twins(
    words: Words,
    on_test_side: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    questions: Callable[[Sequence[int]], dict[int, str]],
) -> dict[int, int]:
    """Find training rows that ask what a test row asks. Linear in the words.

    Args:
        words: Of the question of each row.
        on_test_side: Rows that are tested with, or may be.
        ignored: Rows that are not looked at.
        questions: The normalised questions of some rows; asked for few.

    Returns:
        Training row to the test row that it resembles.
    """
    tested = _Tested(words, np.flatnonzero(on_test_side & ~ignored))
    found: dict[int, int] = {}
    maybe: list[tuple[int, int]] = []
    ends = np.cumsum(words.counts, dtype=np.int64)
    for first in range(0, len(ends), _ROWS_AT_ONCE) if len(tested.rows) else ():
        last = min(first + _ROWS_AT_ONCE, len(ends))
        span = slice(int(ends[first - 1]) if first else 0, int(ends[last - 1]))
        here = Words(words.counts[first:last], words.words[span], words.stems[span])
        training = ~(on_test_side | ignored)[first:last]
        alike, spelt = tested.compare(here, training)
        found.update({first + row: test for row, test in alike.items()})
        maybe += [(first + row, test) for row, test in spelt if first + row not in found]
    if maybe:
        known = questions(sorted({row for pair in maybe for row in pair}))
        for row, test in maybe:
            if row not in found and same_but_for_spelling(known[row], known[test]):
                found[row] = test
    return found


class _Tested:
    """The hashes of what is tested with."""

    def __init__(self, words: Words, rows: NDArray[np.int64]) -> None:
        """Of these rows among all."""
        self.rows = rows
        ends = np.cumsum(words.counts, dtype=np.int64)
        counts = words.counts[rows].astype(np.int64)
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places = np.repeat(ends[rows] - counts, counts) + inside
        taken = Words(words.counts[rows], words.words[places], words.stems[places])
        made = sequences(taken)
        long = taken.counts >= 2
        self._whole, self._whole_row = made.whole[long], rows[long]
        shorter = _removable(taken, made)
        self._shorter, self._shorter_row = made.without[shorter], rows[made.row_of[shorter]]
        keys, of = _spelling_keys(taken, made)
        order = np.argsort(keys, kind="stable")
        self._keys, self._keys_row = keys[order], rows[of[order]]

    def compare(self, words: Words, wanted: NDArray[np.bool_]) -> tuple[dict[int, int], list[tuple[int, int]]]:
        """Rows that are like a test row, and pairs of rows that may be the same but for the spelling of a word."""
        made = sequences(words)
        alike: dict[int, int] = {}

        def take(rows: NDArray[np.int64], hashes: Hashes, tests: Hashes, test_rows: NDArray[np.int64]) -> None:
            where = positions(hashes, tests)
            for place in np.flatnonzero(where >= 0).tolist():
                alike.setdefault(int(rows[place]), int(test_rows[where[place]]))

        rows = np.flatnonzero(wanted & (words.counts >= 2))
        take(rows, made.whole[rows], self._whole, self._whole_row)
        longer = _removable(words, made) & wanted[made.row_of]
        take(made.row_of[longer], made.without[longer], self._whole, self._whole_row)
        rows = np.flatnonzero(wanted & (words.counts >= LEAST_COMMON))
        take(rows, made.whole[rows], self._shorter, self._shorter_row)
        return alike, self._spelt(words, made, wanted, alike)

    def _spelt(
        self, words: Words, made: Sequences, wanted: NDArray[np.bool_], alike: dict[int, int]
    ) -> list[tuple[int, int]]:
        left = wanted.copy()
        left[list(alike)] = False
        keys, of = _spelling_keys(words, made)
        mine = left[of]
        mine[mine] = among(keys[mine], self._keys)
        keys, of = keys[mine], of[mine]
        at = np.searchsorted(self._keys, keys)
        pairs: list[tuple[int, int]] = []
        for step in range(_SPELLINGS_PER_WORD):
            place = np.minimum(at + step, max(len(self._keys) - 1, 0))
            same = self._keys[place] == keys if len(keys) else np.zeros(0, bool)
            pairs += zip(of[same].tolist(), self._keys_row[place[same]].tolist(), strict=True)
        return pairs


def _removable(words: Words, made: Sequences) -> NDArray[np.bool_]:
    """The words without which a question would still be near."""
    free: NDArray[np.bool_] = words.stems & FIXED == 0
    return free & (words.counts[made.row_of] > LEAST_COMMON)


def _spelling_keys(words: Words, made: Sequences) -> tuple[Hashes, NDArray[np.int64]]:
    """For each word that may be misspelt, a hash of how it begins and of all the others; and its question."""
    places = np.flatnonzero(
        (words.stems & FIXED == 0) & (words.stems > 0) & (words.counts[made.row_of] >= LEAST_COMMON)
    )
    return mix(made.without[places] ^ mix(words.stems[places].astype(np.uint64))), made.row_of[places]
