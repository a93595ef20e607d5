"""What the gate is asked, and the words in which it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi3_assets.evaluation.present import COLUMNS
from phi3_assets.evaluation.statistics import Comparison


@dataclass(frozen=True)
class Thresholds:
    """What the gate asks for; recipe fields of the same names without `gate_`.

    Attributes:
        metric: What has to get better: nll, exact_match or f1.
        alpha: How often a model no better than base, or than the champion, may pass for better. Per decision.
        min_items: Fewest test items a decision may rest on.
        learnt_answers: Whether int4 must prefer right answers to those of other questions more than base does.
        min_gain_kept: Least share of fine-tuning's gain in likelihood that int4 keeps.
        min_stop_rate: Least share of int4's answers that end by themselves.
        max_general_nll_ratio: Most that int4's NLL of general text may be, as a multiple of base's.
    """

    metric: str
    alpha: float
    min_items: int
    learnt_answers: bool
    min_gain_kept: float
    min_stop_rate: float
    max_general_nll_ratio: float

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Thresholds":
        """From recipe fields: gate_metric, gate_alpha, and so on."""
        return cls(**{name: params[f"gate_{name}"] for name in cls.__dataclass_fields__})


def numbers(found: Comparison) -> dict[str, float]:
    """What a comparison says, for a finding."""
    return {"difference": found.difference, "low": found.low, "high": found.high, "p": found.p_better}


def difference(found: Comparison, alpha: float) -> str:
    """A comparison in the words of a finding."""
    return (
        f"{found.difference:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f}, p = {found.p_better:.4f}, "
        f"limit {alpha})"
    )


def title(metric: str) -> str:
    """A metric's name for people."""
    return next(column.title for column in COLUMNS if column.metric == metric)
