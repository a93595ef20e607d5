"""Repeated looks at one test set: of enough retrains that are no better one seems to be."""

import math
from collections.abc import Iterable, Mapping
from typing import Any


def look_of(decisions: Iterable[Mapping[str, Any]], test_set: str) -> int:
    """Which look at its test set a decision about a release is, from 1.

    A release that was decided about twice was looked at once; with a test set that grew the count begins anew.

    Args:
        decisions: What the champion's history holds of each decision about other releases.
        test_set: Digest of the questions and answers.
    """
    seen = {
        decision["made_of"]["release_bundle"]["identity"]
        for decision in decisions
        if decision.get("test_set") == test_set and "comparison" in decision
    }
    return len(seen) + 1


def alpha_of(alpha: float, look: int) -> float:
    """The part of alpha that a look may spend: 6 / (pi look)^2 of it, which over all looks adds up to it.

    Alpha spending as in group-sequential trials (Lan and DeMets, 1983), with Euler's series, which needs no last look.
    """
    return alpha * 6 / (math.pi * look) ** 2
