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
        max_int4_loss: Largest share of exact match and of F1 that int4 may lose against merged.
        max_general_perplexity_ratio: Most that int4's perplexity of general text may be, as a multiple of base's.
    """

    metric: str
    alpha: float
    min_items: int
    learnt_answers: bool
    min_gain_kept: float
    min_stop_rate: float
    max_int4_loss: float
    max_general_perplexity_ratio: float

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Thresholds":
        """From recipe fields: gate_metric, gate_alpha, and so on."""
        return cls(**{name: params[f"gate_{name}"] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Margins:
    """What a release must keep of the champion, and gain on it; recipe fields of the same names without `gate_`.

    Attributes:
        metric: What has to get better: nll, exact_match or f1.
        alpha: How often a model no better than the champion may pass for better, over all looks at one test set; and
            how often one that loses as much as a margin may pass for one that does not, per decision and rule.
        min_items: Fewest test items a decision may rest on.
        min_effect: Least gain in `metric`, in nats per token or as a share of answers.
        training_noise: Standard deviation of `metric` between trainings on unchanged data, where it was not seen.
        max_loss: Margin of exact match, F1, stop rate and valid JSON, as a share of answers.
        max_nll_loss: Margin of the likelihood of answers, in nats per token.
        max_slice_loss: Margin of exact match and F1 in each slice of the test set, as a share of answers.
        max_perplexity_growth: Most that int4's perplexity of general text may be, as a multiple of the champion's.
        max_bytes_growth: Most that int4's bytes may be, as a multiple of the champion's.
        min_speed_kept: Least decoding speed, as a multiple of the champion's.
        learnt_answers: Whether right answers must be preferred in each slice.
    """

    metric: str
    alpha: float
    min_items: int
    min_effect: float
    training_noise: float
    max_loss: float
    max_nll_loss: float
    max_slice_loss: float
    max_perplexity_growth: float
    max_bytes_growth: float
    min_speed_kept: float
    learnt_answers: bool

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Margins":
        """From recipe fields: gate_metric, gate_alpha, and so on."""
        return cls(**{name: params[f"gate_{name}"] for name in cls.__dataclass_fields__})


def amount(metric: str, value: float) -> str:
    """A difference in a metric, in words: nats, or points of a hundred."""
    return f"{value:.3f} nats per token" if metric == "nll" else f"{100 * value:.1f} points"


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
