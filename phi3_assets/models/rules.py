"""The blocking rules of base_model and merged_model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe
from phi3_assets.models.measured import MergeMetrics

# The layouts are the same arithmetic; anything above rounding is a defect in the conversion.
MAX_LOGIT_DIFFERENCE = 1e-4


def judge_base_model(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """A model laid out anew as Phi-3 answers exactly as its source does."""
    rule = "layout_keeps_the_logits"
    difference = metrics.get("max_logit_difference")
    if difference is None:
        return [Finding(rule, True, "The weights are the source's own; nothing was laid out anew.")]
    return [
        Finding(
            rule,
            difference <= MAX_LOGIT_DIFFERENCE,
            f"Largest difference of a logit: {difference:g}.",
            {"max_logit_difference": difference},
        )
    ]


def judge_merged_model(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """Merged answers as base + adapter do, within rounding, and otherwise than base."""
    rule = "merged_keeps_the_logits"
    merged = MergeMetrics.from_dict(metrics)
    error, allowed, change = merged.max_logit_difference, merged.logit_tolerance, merged.max_logit_change
    if error is None or allowed is None or change is None:
        return [Finding(rule, True, "The adapter changes nothing (method none): merged_model is the base model.")]
    return [
        Finding(
            rule,
            error <= allowed and error < change,
            f"Largest difference of a logit between merged and base + adapter: {error:.3g}; {allowed:.3g} is rounding. "
            f"From base it moved by up to {change:.3g}.",
            {"max_logit_difference": error, "logit_tolerance": allowed, "max_logit_change": change},
        )
    ]
