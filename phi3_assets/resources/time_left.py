"""How long a step will still take: a range, from how fast it went so far."""

from bisect import bisect_left
from itertools import pairwise

WINDOWS = 6
"""Stretches of the past whose speeds are told apart; the slowest and the fastest make the range."""
LEAST_DONE = 0.03
"""Of the whole, before anything is said: the first steps of a training are the slowest, and tell nothing."""
MARGIN = 0.15
"""Of the time left, added on both sides."""


class TimeLeft:
    """Follows one step."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._times_s: list[float] = []
        self._fractions: list[float] = []

    def after(self, now_s: float, fraction: float) -> tuple[float, float] | None:
        """Least and most seconds that are left, now that `fraction` is done; None: too early to say.

        It began at its first report, which of a training that was taken up again says what was done before.
        """
        self._times_s.append(now_s)
        self._fractions.append(fraction)
        if fraction - self._fractions[0] < LEAST_DONE or len(self._times_s) < WINDOWS // 2:
            return None
        began_s = self._times_s[0]
        edges = [began_s + (now_s - began_s) * number / WINDOWS for number in range(WINDOWS + 1)]
        # Its beginning counts in the whole alone.
        windows = [self._speed(start, end) for start, end in list(pairwise(edges))[1:]]
        speeds = [self._speed(began_s, now_s), *(speed for speed in windows if speed > 0)]
        left = 1 - fraction
        return left / max(speeds) * (1 - MARGIN), left / min(speeds) * (1 + MARGIN)

    def _speed(self, start_s: float, end_s: float) -> float:
        return (self._at(end_s) - self._at(start_s)) / max(end_s - start_s, 1e-9)

    def _at(self, time_s: float) -> float:
        """What was done then; between two reports in proportion."""
        later = bisect_left(self._times_s, time_s, 1, len(self._times_s) - 1)
        earlier_s, later_s = self._times_s[later - 1 : later + 1]
        before, after = self._fractions[later - 1 : later + 1]
        return before + (after - before) * (time_s - earlier_s) / max(later_s - earlier_s, 1e-9)


def told(least_s: float, most_s: float) -> str:
    """Such as "40 to 70 s" or "3 to 5 min"."""
    unit, size = ("s", 1) if most_s < 120 else ("min", 60) if most_s < 2 * 3600 else ("h", 3600)
    low, high = least_s / size, most_s / size
    step = 10 if unit == "s" and high > 20 else 1
    low, high = int(low / step) * step, int(-(-high // step)) * step
    return f"{low} to {high} {unit}" if low < high else f"{high} {unit}"
