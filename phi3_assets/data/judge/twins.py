"""Training rows whose question is that of a test row but for a word: they would make a score one of memory.

The question alone decides, whatever the answer. Near are questions with the same words but for fillers ('please'), with
one word more or less that is no negation and holds no digit, or with one word spelt otherwise. Another word in its
place is another fact: 'code 403' and 'code 404', 'enable' and 'disable', 'upload' and 'unload'.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import Hashes, among, positions
from phi3_assets.data.judge.words import Hashed, same_but_for_spelling

_SPELLINGS_PER_WORD = 4


def find_twins(
    blocks: Callable[[], Iterator[Hashed]],
    on_test_side: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    questions: Callable[[Sequence[int]], dict[int, str]],
) -> dict[int, int]:
    """Find training rows that ask what a test row asks. Linear in the words.

    Args:
        blocks: Hashes of the questions of all rows, some at a time; asked twice.
        on_test_side: Rows that are tested with, or may be.
        ignored: Rows that are not looked at.
        questions: The normalised questions of some rows; asked for few.

    Returns:
        Training row to the test row that it resembles.
    """
    testing, training = on_test_side & ~ignored, ~(on_test_side | ignored)
    found: dict[int, int] = {}
    if not testing.any() or not training.any():
        return found
    tested = _Tested(blocks(), testing)
    maybe: list[tuple[int, int]] = []
    first = 0
    for block in blocks():
        tested.compare(block, first, training, found, maybe)
        first += len(block.counts)
    maybe = [pair for pair in maybe if pair[0] not in found]
    if maybe:
        known = questions(sorted({row for pair in maybe for row in pair}))
        for row, test in maybe:
            if row not in found and same_but_for_spelling(known[row], known[test]):
                found[row] = test
    return found


class _Tested:
    """The hashes of what is tested with, each with its row."""

    def __init__(self, blocks: Iterator[Hashed], testing: NDArray[np.bool_]) -> None:
        """Of these rows among all."""
        parts: list[list[NDArray[np.uint64]]] = [[], [], []]
        rows: list[list[NDArray[np.int64]]] = [[], [], []]
        first = 0
        for block in blocks:
            mine = testing[first : first + len(block.counts)]
            numbers = first + np.flatnonzero(mine)
            of_words = np.repeat(numbers, block.counts[mine])
            words = np.repeat(mine, block.counts)
            for kind, (hashes, owners) in enumerate(
                ((block.whole[mine], numbers), (block.without[words], of_words), (block.spelt[words], of_words))
            ):
                parts[kind].append(hashes[hashes != 0])
                rows[kind].append(owners[hashes != 0])
            first += len(block.counts)
        whole, shorter, spelt = (np.concatenate(kind) for kind in parts)
        of_whole, of_shorter, of_spelt = (np.concatenate(kind) for kind in rows)
        self._whole: Hashes = whole
        self._shorter: Hashes = shorter
        self._whole_row: NDArray[np.int64] = of_whole
        self._shorter_row: NDArray[np.int64] = of_shorter
        self._spelt: Hashes = spelt
        self._spelt_row: NDArray[np.int64] = of_spelt

    def compare(
        self,
        block: Hashed,
        first: int,
        training: NDArray[np.bool_],
        found: dict[int, int],
        maybe: list[tuple[int, int]],
    ) -> None:
        """Add to `found` the rows that are like a test row, to `maybe` pairs that a spelling may tell apart.

        Args:
            block: Some rows.
            first: Number of the first of them.
            training: Which rows of all are trained on.
            found: Row to test row.
            maybe: Pairs of row and test row.
        """
        mine = training[first : first + len(block.counts)]
        numbers = first + np.flatnonzero(mine)
        ends = np.cumsum(block.counts[mine], dtype=np.int64)
        words = np.repeat(mine, block.counts)

        def take(rows: NDArray[np.int64], tests: NDArray[np.int64]) -> None:
            for row, test in zip(rows.tolist(), tests.tolist(), strict=True):
                found.setdefault(row, test)

        for tests, test_rows in ((self._whole, self._whole_row), (self._shorter, self._shorter_row)):
            where = positions(block.whole[mine], tests)
            hits = np.flatnonzero(where >= 0)
            take(numbers[hits], test_rows[where[hits]])
        where = positions(block.without[words], self._whole)
        hits = np.flatnonzero(where >= 0)
        take(numbers[np.searchsorted(ends, hits, side="right")], self._whole_row[where[hits]])
        spelt = block.spelt[words]
        hits = np.flatnonzero(among(spelt, self._spelt))
        rows = numbers[np.searchsorted(ends, hits, side="right")]
        if len(hits):
            maybe += self._pairs(rows, spelt[hits])

    def _pairs(self, rows: NDArray[np.int64], keys: Hashes) -> list[tuple[int, int]]:
        """Rows, of which the keys are among the tests', with some tests of the same key each."""
        mine = np.flatnonzero(among(self._spelt, keys))
        mine = mine[np.argsort(self._spelt[mine], kind="stable")]
        ordered = self._spelt[mine]
        at = np.searchsorted(ordered, keys)
        pairs: list[tuple[int, int]] = []
        for step in range(_SPELLINGS_PER_WORD):
            place = np.minimum(at + step, len(ordered) - 1)
            same = ordered[place] == keys
            pairs += zip(rows[same].tolist(), self._spelt_row[mine[place[same]]].tolist(), strict=True)
        return pairs
