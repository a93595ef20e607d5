"""The statistics against textbook values and against what they promise."""

import random

import pytest

from phi3_assets.evaluation.statistics import compare, interval, item_values, items_needed


def draws(count, mean, spread, seed):
    source = random.Random(seed)
    return [source.gauss(mean, spread) for _ in range(count)]


def test_interval_agrees_with_the_normal_one_on_normal_values():
    values = draws(400, 2.0, 1.0, 1)
    mean = sum(values) / len(values)
    low, high = interval(values)
    assert low == pytest.approx(mean - 1.96 / 20, abs=0.02)
    assert high == pytest.approx(mean + 1.96 / 20, abs=0.02)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Skewed values and few items, as with exact match: 95 % of 200 intervals, give or take two standard errors."""
    source = random.Random(2)
    covered = 0
    for _ in range(200):
        low, high = interval([float(source.random() < 0.7) for _ in range(60)])
        covered += low <= 0.7 <= high
    assert covered >= 0.95 * 200 - 2 * (200 * 0.95 * 0.05) ** 0.5


def test_equal_values_have_no_width_and_no_significance():
    found = compare("exact_match", "a", "b", [1.0] * 30, [1.0] * 30)
    assert (found.difference, found.low, found.high) == (0, 0, 0)
    assert (found.p_better, found.p_worse, found.items_needed) == (1, 1, None)


def test_exact_match_test_equals_mcnemar():
    """Nine items turned right, one turned wrong, the rest unchanged: one-sided exact p is P(Bin(10, 1/2) >= 9)."""
    ours = [1.0] * 9 + [0.0] + [1.0] * 20
    theirs = [0.0] * 9 + [1.0] + [1.0] * 20
    found = compare("exact_match", "a", "b", ours, theirs)
    assert found.p_better == pytest.approx(11 / 1024, abs=0.005)
    assert found.p_worse > 0.9


def test_less_is_better_for_nll():
    theirs = draws(50, 2.0, 0.5, 3)
    found = compare("nll", "a", "b", [value - 0.3 for value in theirs], theirs)
    assert found.difference == pytest.approx(-0.3)
    assert found.p_better < 0.001 < found.p_worse


def test_items_needed_gives_the_power_it_says():
    """Draw as many items as it asks for; four of five times the difference must be found."""
    needed = items_needed(draws(2000, 0.2, 1.0, 4))
    assert 130 < needed < 180  # (1.645 + 0.842)^2 / 0.2^2 = 154.6
    found = 0
    for seed in range(60):
        values = draws(needed, 0.2, 1.0, 100 + seed)
        found += compare("f1", "a", "b", values, [0.0] * needed).p_better <= 0.05
    assert 0.68 <= found / 60 <= 0.92


def test_token_weights_make_nats_per_token():
    records = [
        {"reference_tokens": 1, "variants": {"int4": {"nll": 4.0}}},
        {"reference_tokens": 3, "variants": {"int4": {"nll": 2.0}}},
    ]
    values = item_values(records, "int4", "nll")
    assert sum(values) / 2 == pytest.approx((4 * 1 + 2 * 3) / 4)


def test_one_item_is_judged_and_proves_nothing():
    """A test set of one row ended in a traceback of scipy's, before the gate could say that it is too small."""
    better, same = compare("f1", "a", "b", [1.0], [0.5]), compare("nll", "a", "b", [1.0], [1.0])
    assert (better.p_better, better.p_worse, better.items_needed) == (0.5, 1.0, None)
    assert (same.p_better, same.p_worse) == (1.0, 1.0)
    assert compare("nll", "a", "b", [1.0], [0.5]).p_worse == 0.5


def clustered(source, groups=40, size=4):
    """Values whose correlation within a group is 0.5, and the group of each."""
    values, numbers = [], []
    for group in range(groups):
        shared = source.gauss(0, 0.5**0.5)
        values += [shared + source.gauss(0, 0.5**0.5) for _ in range(size)]
        numbers += [group] * size
    return values, numbers


def test_near_alike_items_are_resampled_together():
    """Taken as independent they gave 18 to 26 % false alarms, and intervals that missed the truth as often."""
    source = random.Random(5)
    covered, alarms, taken_apart = 0, 0, 0
    for trial in range(100):
        values, groups = clustered(source, size=8)
        found = compare("f1", "a", "b", values, [0.0] * len(values), groups)
        covered += found.low <= 0 <= found.high
        alarms += found.p_better <= 0.05
        if trial < 40:  # the slowest of the three, and the farthest from its bound
            taken_apart += compare("f1", "a", "b", values, [0.0] * len(values)).p_better <= 0.05
    assert covered >= 95 - 2 * (100 * 0.95 * 0.05) ** 0.5
    assert alarms <= 5 + 2.33 * (100 * 0.95 * 0.05) ** 0.5
    assert taken_apart > 0.15 * 40


def test_more_items_are_needed_where_they_are_near_alike():
    values, groups = clustered(random.Random(6), groups=400)
    shifted = [value + 0.2 for value in values]
    # The design effect of four to a group at a correlation of 0.5 is 1 + 3 * 0.5.
    assert items_needed(shifted, groups=groups) == pytest.approx(2.5 * items_needed(shifted), rel=0.15)
