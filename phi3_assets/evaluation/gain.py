"""By how much a model is better than another, how far that can be trusted, and what could have been seen at all.

A gain is positive when the candidate is better, whichever way the metric points. Its error counts groups of items, not
items; training noise, where a question is about trainings and not about one model, is added to it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from phi3_assets.evaluation.statistics import POWER, ROUNDING


@dataclass(frozen=True)
class Gain:
    """A mean gain per item.

    Attributes:
        mean: In the metric's unit; negative: a loss.
        error: Standard error of the mean, over groups.
        items: Items it was seen on.
        groups: Groups that these are in.
    """

    mean: float
    error: float
    items: int
    groups: int


def gain(gains: Sequence[float], groups: Sequence[int], *, shares: bool = False) -> Gain:
    """Mean and cluster-robust standard error.

    The error is that of a mean of items drawn by whole groups: sqrt(G / (G - 1) * sum over groups of (sum of its
    deviations)^2) / n (Cameron and Miller, "A Practitioner's Guide to Cluster-Robust Inference", 2015, section II).

    Args:
        gains: Of each item.
        groups: Group of each item, from `groups_of`.
        shares: Gains are differences of answers right or wrong, and few differ. That none was seen to does not show
            that none ever does: the error counts one group more than was seen to differ.
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
    return Gain(mean, math.hypot(error, 1 / count) if shares else error, items, count)


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
    finest that an equal model passes four times in five, which stands in the result: what is claimed was shown.
    """
    from scipy import stats

    if found.groups < 2 or not math.isfinite(found.error):
        return NonInferiority(False, math.inf, margin, False, None)
    most_lost = -found.mean + float(stats.t.ppf(1 - alpha, found.groups - 1)) * found.error
    finest = least_visible(found.error, found.groups, alpha)
    allowed = max(margin, finest)
    is_finest = finest <= margin
    needed = None if is_finest or margin <= 0 else math.ceil(found.items * (finest / margin) ** 2)
    return NonInferiority(most_lost <= allowed + 1e-12, most_lost, allowed, is_finest, needed)
