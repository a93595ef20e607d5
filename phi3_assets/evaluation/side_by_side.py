"""Candidate, champion and earlier champions, scored together on the questions that are asked now."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phi3_assets.evaluation.gain import Gain, gain
from phi3_assets.evaluation.noise import Noise
from phi3_assets.evaluation.statistics import DIRECTION, item_values, mean_tokens

Record = Mapping[str, Any]
CANDIDATE, CHAMPION = "int4", "champion"
"""Names of the two int4 models among the variants of a record; earlier champions have names of their own."""
ITEM_KEYS = {"stop_rate": "stopped"}


@dataclass(frozen=True)
class SideBySide:
    """Candidate, champion and earlier champions, scored together on the candidate's test set.

    Attributes:
        records: Items; each one's `variants` holds what every model made of it, under `CANDIDATE`, `CHAMPION` and the
            names of earlier champions.
        numbers: Of each model: general_nll, bytes, tokens_per_s.
        known: Ids of the items that the champion's own report was made on.
        noise: Of the metric that has to get better.
        look: Which look at this test set it is, from 1.
    """

    records: Sequence[Record]
    numbers: Mapping[str, Mapping[str, Any]]
    known: Collection[str] = ()
    noise: Noise = field(default_factory=lambda: Noise(0.0))
    look: int = 1

    @property
    def earlier(self) -> list[str]:
        """Names of earlier champions that were scored too."""
        return [name for name in self.numbers if name not in (CANDIDATE, CHAMPION)]


def gains(side: SideBySide, metric: str, against: str) -> tuple[list[float], list[int]]:
    """By how much the candidate is better on each item that has the metric, and the places of these items."""
    key = ITEM_KEYS.get(metric, metric)
    places = [place for place, record in enumerate(side.records) if record["variants"][CANDIDATE][key] is not None]
    chosen = [side.records[place] for place in places]
    if not chosen:
        return [], []
    unit = mean_tokens(chosen)
    ours, theirs = (item_values(chosen, name, key, unit) for name in (CANDIDATE, against))
    sign = DIRECTION.get(metric, 1)
    return [sign * (one - other) for one, other in zip(ours, theirs, strict=True)], places


def best_so_far(side: SideBySide, metric: str, names: Sequence[str]) -> str:
    """Which of these models is best in a metric, on the present items; of equals the first."""
    if metric in ("general_nll", "bytes"):
        return min(names, key=lambda name: side.numbers[name][metric])
    key = ITEM_KEYS.get(metric, metric)
    chosen = [record for record in side.records if record["variants"][CANDIDATE][key] is not None]

    def mean(name: str) -> float:
        return DIRECTION.get(metric, 1) * math.fsum(item_values(chosen, name, key)) / max(1, len(chosen))

    return max(names, key=mean)


def gain_on(side: SideBySide, groups: Sequence[int], metric: str, against: str) -> Gain | None:
    """The candidate's gain in a metric; None: no item has it."""
    values, places = gains(side, metric, against)
    if not values:
        return None
    return gain(values, [groups[place] for place in places], shares=metric != "nll")
