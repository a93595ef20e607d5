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
    """Merged is base and adapter, within rounding, and otherwise than base."""
    rule = "merged_is_base_plus_adapter"
    merged = MergeMetrics.from_dict(metrics)
    kept, needed = merged.least_change_kept, merged.change_needed
    if kept is not None and needed is not None:
        return [
            Finding(
                rule,
                kept >= needed,
                f"In each of the {merged.layers_changed} layers that the adapter changes, by up to "
                f"{merged.largest_change or 0:.2%} of its numbers, at least {kept:.2%} of the change arrived; "
                f"{needed:.1%} must. All other tensors are the base model's.",
                {"least_change_kept": kept, "largest_change": merged.largest_change or 0.0},
            )
        ]
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
