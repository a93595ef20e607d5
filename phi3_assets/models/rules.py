"""The blocking rules of base_model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe

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
