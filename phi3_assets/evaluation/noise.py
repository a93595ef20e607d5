"""How far trainings on unchanged data differ: the noise that no number of test items takes away.

A retrain with another seed is another model, and may be measurably better on these questions without any reason that
lasts. What is promoted must be better by more than that.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MIN_RETRAINS = 3


@dataclass(frozen=True)
class Noise:
    """Spread of a metric between trainings that differ in their seeds alone.

    Attributes:
        deviation: Standard deviation, in the metric's unit.
        freedom: Degrees of freedom that it was estimated with; infinite: the recipe states it.
        retrains: Trainings that it was seen on; 0: none.
    """

    deviation: float
    freedom: float = math.inf
    retrains: int = 0


def training_noise(
    decisions: Iterable[Mapping[str, Any]], metric: str, stated: float, candidate: Mapping[str, Any] | None = None
) -> Noise:
    """The noise that retrains of unchanged data show, or the stated one if there were too few.

    The variance is pooled over all sets of trainings that differ in their seeds alone. A candidate that is such a
    retrain itself tells of the noise too, and then two are enough: of two trainings on unchanged data nobody can say
    more than that one of them came out better. (Seen: the third seed of a tiny model was promoted, for its recipe
    states a fifteenth of the noise that it has.)

    Args:
        decisions: What the champion's history holds of each decision; its `training` says what was trained ("of"),
            which training it is ("adapter"), and the scores of its int4 model ("scores").
        metric: nll, exact_match or f1.
        stated: The recipe's.
        candidate: The `training` of the release that is being decided about; None: not known.
    """
    seen: dict[str, dict[str, float]] = {}
    for training in (*(decision.get("training") for decision in decisions), candidate):
        if training is not None:
            seen.setdefault(training["of"], {})[training["adapter"]] = float(training["scores"][metric])
    is_retrain = candidate is not None and len(seen[candidate["of"]]) > 1
    squares, freedom, retrains = 0.0, 0, 0
    for scores in seen.values():
        if len(scores) > 1:
            mean = math.fsum(scores.values()) / len(scores)
            squares += math.fsum((value - mean) ** 2 for value in scores.values())
            freedom += len(scores) - 1
            retrains += len(scores)
    if retrains < MIN_RETRAINS and not is_retrain:
        return Noise(stated)
    return Noise(math.sqrt(squares / freedom), freedom, retrains)
