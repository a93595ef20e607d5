"""Looking hashes up in other hashes: equal to the plain ways of doing it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phi3_assets.data.fingerprints import among, halves, positions, shared

# Few beginnings and few ends, so that hashes that differ in the other half only are common.
half = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
hashes = st.lists(st.builds(lambda high, low: high << 32 | low, half, half), max_size=60).map(
    lambda numbers: np.array(numbers, np.uint64)
)


@given(hashes, hashes)
def test_lookups_agree_with_python(values, wanted):
    places = {number: place for place, number in reversed(list(enumerate(wanted.tolist())))}
    assert positions(values, wanted).tolist() == [places.get(number, -1) for number in values.tolist()]
    assert among(values, wanted).tolist() == [number in places for number in values.tolist()]


@given(hashes, st.integers(0, 60))
def test_shared_finds_what_stands_there_twice(values, cut):
    runs = np.concatenate([halves(values[:cut]), halves(values[cut:])])
    numbers = values.tolist()
    assert shared(values, runs).tolist() == [numbers.count(number) > 1 for number in numbers]


@pytest.mark.parametrize("sizes", [(200_000, 30_000), (30_000, 200_000)])
def test_many(sizes):
    chooser = np.random.default_rng(0)
    pool = chooser.integers(0, 2**64, 220_000, dtype=np.uint64)
    values, wanted = (chooser.choice(pool, size) for size in sizes)
    assert np.array_equal(among(values, wanted), np.isin(values, wanted))
    unique, counts = np.unique(values, return_counts=True)
    assert np.array_equal(shared(values, halves(values)), np.isin(values, unique[counts > 1]))
