"""Near duplicates: rows whose question and answer are both almost those of another row, with the same digits in them.

MinHash bands name the candidates; the Jaccard index of the texts themselves decides.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import BANDS, Hashes, likeness

Pair = tuple[str, str]
"""Normalised question and answer."""

_PAIRS_AT_ONCE = 20_000
_TEST_ROWS_PER_RUN = 4
# A sketch of 32 minima is off by 0.2 at most (three standard deviations at 0.85); below that the texts are not fetched.
_SKETCH_MARGIN = 0.2


def find_near(
    band: Callable[[int], tuple[Hashes, NDArray[np.bool_]]],
    sketches: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    texts: Callable[[Sequence[int]], dict[int, Pair]],
    on_test_side: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    threshold: float,
) -> dict[int, int]:
    """Find rows that are near duplicates of another one.

    Args:
        band: Hashes of one MinHash band, one per row, and which of them occur more than once.
        sketches: The sketches of some rows, shape (rows, 2, minima): of the question and of the answer.
        texts: The texts of some rows; called with a few thousand at a time.
        on_test_side: Rows that are tested with; they are never reported themselves.
        ignored: Rows that are not looked at, such as exact duplicates.
        threshold: Least Jaccard index, of the questions and of the answers, 0 to 1.

    Returns:
        Row to the row that it resembles: one on the test side if there is one, else an earlier one.
    """
    found: dict[int, int] = {}
    out = ignored.copy()
    for hashes, repeated in _one_ahead(band):
        left, right = _candidates(hashes, repeated, on_test_side, out)
        close = np.zeros(len(left), bool)
        for at in range(0, len(left), _PAIRS_AT_ONCE):
            span = slice(at, at + _PAIRS_AT_ONCE)
            alike = (sketches(left[span]) == sketches(right[span])).mean(axis=2)
            close[span] = alike.min(axis=1) >= threshold - _SKETCH_MARGIN
        left, right = left[close], right[close]
        for at in range(0, len(left), _PAIRS_AT_ONCE):
            pairs = list(
                zip(left[at : at + _PAIRS_AT_ONCE].tolist(), right[at : at + _PAIRS_AT_ONCE].tolist(), strict=True)
            )
            known = texts(sorted({row for pair in pairs for row in pair}))
            for one, other in pairs:
                if other in found and (on_test_side[found[other]] or not on_test_side[one]):
                    continue
                if all(likeness(a, b) >= threshold for a, b in zip(known[one], known[other], strict=True)):
                    found[other] = one
        # A near duplicate of a training row may still be one of a test row, so it is compared on.
        leaked = [row for row, like in found.items() if on_test_side[like]]
        out[leaked] = True
    return found


def _one_ahead(band: Callable[[int], tuple[Hashes, NDArray[np.bool_]]]) -> Iterator[tuple[Hashes, NDArray[np.bool_]]]:
    """The bands in their order, each read and sorted while the one before is looked at."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(band, 0)
        for following in range(1, BANDS):
            ready = coming.result()
            coming = reader.submit(band, following)
            yield ready
        yield coming.result()


def _candidates(
    hashes: Hashes, repeated: NDArray[np.bool_], on_test_side: NDArray[np.bool_], out: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of rows with equal hashes; the second of each pair is a training row.

    Each row is paired with the first row of its run of equal hashes, with the one before it, and with some test rows
    of the run: linear in the rows, however many are alike.
    """
    rows = np.flatnonzero(repeated & ~out)
    # Test rows first within a run, then by row number.
    rows = rows[np.lexsort((rows, ~on_test_side[rows], hashes[rows]))]
    first = np.ones(len(rows), bool)
    first[1:] = hashes[rows[1:]] != hashes[rows[:-1]]
    starts = np.maximum.accumulate(np.where(first, np.arange(len(rows)), 0))
    position = np.arange(len(rows))
    left: list[NDArray[np.int64]] = []
    right: list[NDArray[np.int64]] = []
    for step in (*range(_TEST_ROWS_PER_RUN), -1):
        partner = starts + step if step >= 0 else np.maximum(position - 1, 0)
        good = (partner < position) & (partner >= starts) & ~on_test_side[rows]
        if step > 0:
            good &= on_test_side[rows[np.minimum(partner, len(rows) - 1)]]
        left.append(rows[partner[good]])
        right.append(rows[position[good]])
    pairs = np.unique(np.stack([np.concatenate(left), np.concatenate(right)]), axis=1)
    return pairs[0], pairs[1]
