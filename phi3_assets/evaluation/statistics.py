"""How far the numbers can be trusted: intervals, paired tests, and the number of items it would take.

All comparisons are paired: the same items went through both models, so what varies between items cancels out. Items
that are near alike are resampled together (`phi3_assets.evaluation.groups`). The resampling is scipy's and seeded;
equal scores give equal numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from phi3_assets.evaluation.groups import groups_of

CONFIDENCE = 0.95
RESAMPLES = 4000
POWER = 0.8
COMPARED = ("nll", "exact_match", "f1")
# 1: more is better, -1: less is better
DIRECTION = {"nll": -1, "exact_match": 1, "f1": 1, "preference": 1}
PAIRS = (("adapter", "base"), ("merged", "base"), ("int4", "base"), ("int4", "merged"))
# Scores are kept to six digits; a smaller difference is rounding, and must not count as one.
ROUNDING = 2e-6


@dataclass(frozen=True)
class Comparison:
    """A candidate against a reference in one metric, on the same items.

    Attributes:
        metric: nll, exact_match or f1.
        candidate: Variant that is judged.
        reference: Variant it is judged against.
        difference: Mean of candidate minus reference; for nll in nats per token.
        low: Lower end of the 95 % interval of the difference (paired bootstrap over groups, BCa).
        high: Upper end.
        p_better: Chance of a difference this much in the candidate's favour if the two were equal (one-sided paired
            permutation test).
        p_worse: The same in the candidate's disfavour.
        items_needed: Items at which a true difference of this size would be found with 80 % power at 5 % one-sided;
            None when there is no difference.
    """

    metric: str
    candidate: str
    reference: str
    difference: float
    low: float
    high: float
    p_better: float
    p_worse: float
    items_needed: int | None

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `Comparison(**d)` is its inverse."""
        return asdict(self)


def item_values(
    records: Sequence[Mapping[str, Any]], variant: str, metric: str, unit_tokens: float | None = None
) -> list[float]:
    """Per-item values whose mean is the variant's number.

    Args:
        records: Lines of items.jsonl.
        variant: Whose values.
        metric: Key of an item's number.
        unit_tokens: For nll: an item's nats are divided by this, so that the mean is nats per token. None: the mean
            length of the references. Two models with different tokenizers need the same unit.
    """
    own = [float(record["variants"][variant][metric]) for record in records]
    if metric != "nll":
        return own
    tokens = [record["reference_tokens"] for record in records]
    unit = unit_tokens or mean_tokens(records)
    return [value * count / unit for value, count in zip(own, tokens, strict=True)]


def mean_tokens(records: Sequence[Mapping[str, Any]]) -> float:
    """Mean length of the reference answers, in tokens."""
    return sum(int(record["reference_tokens"]) for record in records) / len(records)


def interval(values: Sequence[float], groups: Sequence[int] | None = None) -> tuple[float, float]:
    """95 % interval of the mean by bootstrap over groups (BCa: Efron, 1987), as scipy computes it.

    Values that are all equal, or a single group, have an interval of no width.

    Args:
        values: Of each item.
        groups: Group of each item, drawn as a whole; None: each item is one of its own.
    """
    import numpy as np
    from scipy import stats

    sums, sizes = _by_group(values, groups)
    if len(sums) < 2 or max(values) - min(values) <= ROUNDING:
        mean = math.fsum(values) / len(values)
        return _rounded(mean), _rounded(mean)
    found = stats.bootstrap(
        (np.asarray(sums), np.asarray(sizes)),
        lambda drawn, counts, axis: drawn.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        vectorized=True,
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="BCa",
        batch=500,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return _rounded(found.low), _rounded(found.high)


def _by_group(values: Sequence[float], groups: Sequence[int] | None) -> tuple[list[float], list[int]]:
    """Sum and number of the values of each group, in the order of first appearance."""
    members: dict[int, list[float]] = {}
    for place, value in enumerate(values):
        members.setdefault(place if groups is None else groups[place], []).append(value)
    return [math.fsum(one) for one in members.values()], [len(one) for one in members.values()]


def compare(
    metric: str,
    candidate: str,
    reference: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    groups: Sequence[int] | None = None,
) -> Comparison:
    """Judge two models on the same items.

    Args:
        metric: Decides which way is better.
        candidate: Name of what is judged.
        reference: Name of what it is judged against.
        ours: The candidate's value on each item.
        theirs: The reference's, in the same order.
        groups: Group of each item; None: each item is one of its own.
    """
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    low, high = interval(differences, groups)
    sums, _ = _by_group([0.0 if abs(value) <= ROUNDING else value for value in differences], groups)
    favour = "greater" if DIRECTION[metric] > 0 else "less"
    against = "less" if DIRECTION[metric] > 0 else "greater"
    return Comparison(
        metric=metric,
        candidate=candidate,
        reference=reference,
        difference=_rounded(math.fsum(differences) / len(differences)),
        low=low,
        high=high,
        p_better=_p_value(sums, favour),
        p_worse=_p_value(sums, against),
        items_needed=items_needed(differences, groups=groups),
    )


def compare_variants(records: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """Every pair of `PAIRS` in every compared metric."""
    groups = groups_of(records)
    return [
        compare(
            metric,
            candidate,
            reference,
            item_values(records, candidate, metric),
            item_values(records, reference, metric),
            groups,
        )
        for candidate, reference in PAIRS
        for metric in COMPARED
    ]


def intervals(records: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """[low, high] of each variant's compared metrics."""
    groups = groups_of(records)
    return {
        variant: {metric: list(interval(item_values(records, variant, metric), groups)) for metric in COMPARED}
        for variant in variants
    }


def items_needed(differences: Sequence[float], alpha: float = 0.05, groups: Sequence[int] | None = None) -> int | None:
    """Sample size of a one-sided paired z-test: ((z_alpha + z_power) * sd / mean)^2, of items grouped as these are.

    Source: Chow, Shao, Wang, "Sample Size Calculations in Clinical Research", 3.1.1; the variance of an item is that of
    the mean over groups, times the number of items.
    """
    from scipy import stats

    mean = math.fsum(differences) / len(differences)
    sums, sizes = _by_group(differences, groups)
    if abs(mean) <= ROUNDING or len(sums) < 2:
        return None
    deviations = math.fsum((one - mean * size) ** 2 for one, size in zip(sums, sizes, strict=True))
    spread = deviations * len(sums) / (len(sums) - 1) / len(differences)
    z = float(stats.norm.ppf(1 - alpha) + stats.norm.ppf(POWER))
    return max(2, math.ceil(z * z * spread / (mean * mean)))


def _p_value(sums: Sequence[float], alternative: str) -> float:
    """Of the sum of differences of each group: what is equal or not is a whole group."""
    import numpy as np
    from scipy import stats

    values = np.asarray(sums)
    if not values.any():
        return 1.0
    if len(values) == 1:  # scipy refuses a single one; of its two signs, one or both are as good as what was seen
        return 0.5 if (values[0] > 0) == (alternative == "greater") else 1.0
    # If the models were equal, which of the two a group's numbers came from would be a coin toss: flip the signs.
    result = stats.permutation_test(
        (values, np.zeros_like(values)),
        lambda ours, theirs, axis: np.mean(ours - theirs, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=500,
        alternative=alternative,
        rng=np.random.default_rng(0),
    )
    return round(float(result.pvalue), 6)


def _rounded(value: float) -> float:
    return round(float(value), 6)
