"""Training rows whose question is that of a test row but for a word: they would make a score one of memory.

The question alone decides, whatever the answer. Near are questions with the same words but for fillers ('please'), with
one word more or less that is no negation and holds no digit, or with one word spelt otherwise. Another word in its
place is another fact: 'code 403' and 'code 404', 'enable' and 'disable', 'upload' and 'unload'.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import Hashes, Lookup, among
from phi3_assets.data.judge.words import Hashed, same_but_for_spelling

_SPELLINGS_PER_WORD = 4

Pairs = list[tuple[int, int]]
"""A training row and a test row each."""


class Block(NamedTuple):
    """Some of the rows: how many, and what brings the hashes of their questions."""

    rows: int
    load: Callable[[], Hashed]


def find_twins(
    blocks: Sequence[Block],
    on_test_side: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    questions: Callable[[Sequence[int]], dict[int, str]],
) -> dict[int, int]:
    """Find training rows that ask what a test row asks. Linear in the words, on all cores.

    Args:
        blocks: All rows, in their order; each is loaded twice.
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
    ends = np.cumsum([block.rows for block in blocks]).tolist()
    firsts = [end - block.rows for end, block in zip(ends, blocks, strict=True)]
    maybe: Pairs = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        tested = _Tested(list(pool.map(lambda block, first: _of_rows(block.load(), first, testing), blocks, firsts)))
        for sure, unsure in pool.map(
            lambda block, first: tested.compare(block.load(), first, training), blocks, firsts
        ):
            for row, test in sure:
                found.setdefault(row, test)
            maybe += unsure
    maybe = [pair for pair in maybe if pair[0] not in found]
    if maybe:
        known = questions(sorted({row for pair in maybe for row in pair}))
        for row, test in maybe:
            if row not in found and same_but_for_spelling(known[row], known[test]):
                found[row] = test
    return found


Owned = tuple[Hashes, NDArray[np.int64]]
"""Hashes, and the row of each."""


def _of_rows(block: Hashed, first: int, chosen: NDArray[np.bool_]) -> list[Owned]:
    """The hashes of those rows of a block that are chosen: whole, without a word, and spelt."""
    mine = chosen[first : first + len(block.counts)]
    numbers = first + np.flatnonzero(mine)
    of_words = np.repeat(numbers, block.counts[mine])
    words = np.repeat(mine, block.counts)
    owned = ((block.whole[mine], numbers), (block.without[words], of_words), (block.spelt[words], of_words))
    return [(hashes[hashes != 0], owners[hashes != 0]) for hashes, owners in owned]


class _Tested:
    """The hashes of what is tested with, each with its row."""

    def __init__(self, blocks: Sequence[list[Owned]]) -> None:
        """`blocks` are what `_of_rows` finds of them."""
        whole, shorter, spelt = (
            (np.concatenate([hashes for hashes, _ in kind]), np.concatenate([owners for _, owners in kind]))
            for kind in zip(*blocks, strict=True)
        )
        self._whole = Lookup(whole[0])
        self._shorter = Lookup(shorter[0])
        self._spelt = Lookup(spelt[0])
        self._whole_row: NDArray[np.int64] = whole[1]
        self._shorter_row: NDArray[np.int64] = shorter[1]
        self._spelt_row: NDArray[np.int64] = spelt[1]

    def compare(self, block: Hashed, first: int, training: NDArray[np.bool_]) -> tuple[Pairs, Pairs]:
        """Rows that are like a test row, and pairs that a spelling may tell apart.

        Args:
            block: Some rows.
            first: Number of the first of them.
            training: Which rows of all are trained on.
        """
        mine = training[first : first + len(block.counts)]
        numbers = first + np.flatnonzero(mine)
        ends = np.cumsum(block.counts[mine], dtype=np.int64)
        words = np.repeat(mine, block.counts)
        sure: Pairs = []

        def take(rows: NDArray[np.int64], tests: NDArray[np.int64]) -> None:
            sure.extend(zip(rows.tolist(), tests.tolist(), strict=True))

        whole = block.whole[mine]
        for tests, test_rows in ((self._whole, self._whole_row), (self._shorter, self._shorter_row)):
            hits, where = tests.find(whole)
            take(numbers[hits], test_rows[where])
        hits, where = self._whole.find(block.without[words])
        take(numbers[np.searchsorted(ends, hits, side="right")], self._whole_row[where])
        spelt = block.spelt[words]
        hits, _ = self._spelt.find(spelt)
        rows = numbers[np.searchsorted(ends, hits, side="right")]
        return sure, self._pairs(rows, spelt[hits]) if len(hits) else []

    def _pairs(self, rows: NDArray[np.int64], keys: Hashes) -> Pairs:
        """Rows, of which the keys are among the tests', with some tests of the same key each."""
        spelt = self._spelt.wanted
        mine = np.flatnonzero(among(spelt, keys))
        mine = mine[np.argsort(spelt[mine], kind="stable")]
        ordered = spelt[mine]
        at = np.searchsorted(ordered, keys)
        pairs: Pairs = []
        for step in range(_SPELLINGS_PER_WORD):
            place = np.minimum(at + step, len(ordered) - 1)
            same = ordered[place] == keys
            pairs += zip(rows[same].tolist(), self._spelt_row[mine[place[same]]].tolist(), strict=True)
        return pairs
