"""By how much a model is better than another, how far that can be trusted, and what could have been seen at all.

A gain is positive when the candidate is better, whichever way the metric points. Its error counts groups of items, not
items; training noise, where a question is about trainings and not about one model, is added to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from phi3_assets.evaluation.statistics import POWER, ROUNDING

# Where none of n is seen to differ, 3 / n still may at 95 % (the rule of three: Hanley, Lippman-Hand, 1983). With one
# more than was seen, as it was, 66 items "ruled out" a loss that there was in up to one of five tests.
UNSEEN = 3


@dataclass(frozen=True)
class Gain:
    """A mean gain per item.

    Attributes:
        mean: In the metric's unit; negative: a loss.
        error: Standard error of the mean, over groups; of what was not seen too.
        items: Items it was seen on.
        groups: Groups that these are in.
        one_group: Share of a group, where `error` counts `UNSEEN` of them beside those that were seen to differ.
    """

    mean: float
    error: float
    items: int
    groups: int
    one_group: float = 0.0

    @property
    def seen(self) -> float:
        """The part of `error` that was seen."""
        return math.sqrt(max(0.0, self.error**2 - UNSEEN * self.one_group**2))


def gain(gains: Sequence[float], groups: Sequence[int], *, shares: bool = False) -> Gain:
    """Mean and cluster-robust standard error.

    The error is that of a mean of items drawn by whole groups: sqrt(G / (G - 1) * sum over groups of (sum of its
    deviations)^2) / n (Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", 2015, section II).

    Args:
        gains: Of each item.
        groups: Group of each item, from `groups_of`.
        shares: Gains are differences of answers right or wrong, and few differ. That none was seen to does not show
            that none ever does: the error counts `UNSEEN` groups more than were seen to differ.
    """
    items, count = len(gains), len(set(groups))
    mean = math.fsum(gains) / items
    if abs(mean) <= ROUNDING:
        mean = 0.0
    sums: dict[int, float] = {}
    for value, group in zip(gains, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + (0.0 if abs(value) <= ROUNDING else value) - mean
    error = math.inf
    if count > 1:
        error = math.sqrt(count / (count - 1) * math.fsum(one * one for one in sums.values())) / items
    if not shares:
        return Gain(mean, error, items, count)
    return Gain(mean, math.hypot(error, math.sqrt(UNSEEN) / count), items, count, 1 / count)


def p_better(found: Gain, noise: float = 0.0, noise_freedom: float = math.inf) -> float:
    """Chance of so large a gain between two trainings that are no better than each other (one-sided t-test).

    Args:
        found: The gain.
        noise: Standard deviation of the metric between trainings on unchanged data; two of them are compared.
        noise_freedom: Degrees of freedom that `noise` was estimated with; infinite: it is stated.
    """
    from scipy import stats

    if not found.mean > 0 or not math.isfinite(found.error):
        return 1.0
    items, trainings = found.error**2, 2 * noise**2
    if items + trainings == 0:
        # Every item gained the same: nothing varies that could have done so by chance.
        return 0.5**found.groups
    # Satterthwaite 1946: how far the sum of two estimated variances can be trusted.
    freedom = (items + trainings) ** 2 / (items**2 / (found.groups - 1) + trainings**2 / noise_freedom)
    return float(stats.t.sf(found.mean / math.sqrt(items + trainings), freedom))


def p_worse(found: Gain) -> float:
    """Chance of so large a loss if there is none, for this very model: training noise does not count."""
    return p_better(Gain(-found.mean, found.error, found.items, found.groups))


def least_visible(error: float, groups: int, alpha: float) -> float:
    """The smallest true difference that is found four times in five (power 80 %) at this error."""
    from scipy import stats

    if groups < 2 or not math.isfinite(error):
        return math.inf
    return error * float(stats.t.ppf(1 - alpha, groups - 1) + stats.t.ppf(POWER, groups - 1))


@dataclass(frozen=True)
class NonInferiority:
    """Whether a loss beyond a margin can be ruled out.

    Attributes:
        passed: It can.
        most_lost: Upper end of the one-sided interval of the loss.
        margin: What it was held against: the margin asked for, or what the items allow.
        is_finest: The items allow the margin that was asked for.
        items_needed: How many items would allow it; None: these do.
    """

    passed: bool
    most_lost: float
    margin: float
    is_finest: bool
    items_needed: int | None


def non_inferior(found: Gain, margin: float, alpha: float) -> NonInferiority:
    """Rule out, at level alpha, that the candidate loses more than the margin.

    A margin finer than the items can show would refuse every model, also an equal one. It is then replaced by the
    finest that an equal model passes four times in five, which stands in the result: what is claimed was shown. An
    equal model's mean moves with what was seen to differ, and one group more.
    """
    from scipy import stats

    if found.groups < 2 or not math.isfinite(found.error):
        return NonInferiority(False, math.inf, margin, False, None)
    surely, usually = (float(stats.t.ppf(share, found.groups - 1)) for share in (1 - alpha, POWER))
    most_lost = -found.mean + surely * found.error
    finest = surely * found.error + usually * math.hypot(found.seen, found.one_group)
    allowed = max(margin, finest)
    is_finest = finest <= margin
    needed = None if is_finest or margin <= 0 else _items_needed(found, margin / (surely + usually))
    return NonInferiority(most_lost <= allowed + 1e-12, most_lost, allowed, is_finest, needed)


def _items_needed(found: Gain, error: float) -> int:
    """Items at which the error would be this one: what is seen falls with the root of their number, the rest faster."""
    seen, unseen = found.seen**2, UNSEEN * found.one_group**2
    times = (seen + math.sqrt(seen**2 + 4 * error**2 * unseen)) / (2 * error**2)
    return math.ceil(found.items * times)
