"""The range of the time that is left holds what comes true, and is narrow where the speed is even.

Estimates were off by a factor of 3 to 5, both ways.
"""

import pytest

from phi3_assets.resources.time_left import TimeLeft, told


def ranges(times):
    """What is said at each report of a step that is `number / len(times)` done at each of `times`."""
    left = TimeLeft()
    return [left.after(now, number / len(times)) for number, now in enumerate(times, 1)]


def test_an_even_step_is_told_within_a_quarter():
    said = ranges([5.0 * number for number in range(1, 101)])
    for number, one in enumerate(said, 1):
        if one is not None:
            true = 5.0 * (100 - number)
            assert one[0] <= true <= one[1] <= 1.25 * max(true, 1e-9)
    assert sum(one is not None for one in said) > 90


def test_a_step_that_slows_down_is_within_the_range_from_the_middle_on():
    """A third of the work at a third of the speed, as where sentences get longer."""
    times = [number if number <= 66 else 66 + 3 * (number - 66) for number in range(1, 101)]
    said = ranges([float(one) for one in times])
    for at in (80, 90, 95):
        low, high = said[at - 1]
        assert low <= times[-1] - times[at - 1] <= high


def test_nothing_is_said_too_early():
    left = TimeLeft()
    assert left.after(0.0, 0.0) is None
    assert left.after(60.0, 0.01) is None


def test_what_was_done_before_a_restart_is_not_taken_for_speed():
    left = TimeLeft()
    for number in range(11):
        said = left.after(10.0 * number, 0.5 + 0.01 * number)
    assert said is not None
    assert said[0] <= 400 <= said[1] <= 500


@pytest.mark.parametrize(
    ("least", "most", "words"),
    [
        (38, 71, "30 to 80 s"),
        (3, 9.5, "3 to 10 s"),
        (0.2, 0.8, "0 to 1 s"),
        (170, 290, "2 to 5 min"),
        (8000, 12000, "2 to 4 h"),
    ],
)
def test_the_range_in_words(least, most, words):
    assert told(least, most) == words
