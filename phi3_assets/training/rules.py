"""The blocking rules of lora_adapter."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe


def judge_adapter(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """Training moved the adapter: its loss is finite and its B matrices, zero at first, are not zero."""
    rule = "adapter_is_not_inert"
    norm = metrics["b_norm_min"]
    told = f"Smallest norm of {metrics['b_matrices']} B matrices: {norm:.3g}"
    if metrics["method"] == "none":
        return [Finding(rule, True, "Nothing was to be trained (method none): merged_model is the base model.")]
    if metrics["method"] == "given":
        return [Finding(rule, norm > 0, f"{told}.", {"b_norm_min": norm})]
    loss = metrics["final_loss"]
    finite = math.isfinite(loss)
    return [
        Finding(
            rule,
            finite and norm > 0,
            f"{told}; loss from {metrics['first_loss']:.3g} to {loss:.3g}.",
            {"b_norm_min": norm, **({"final_loss": loss} if finite else {})},
        )
    ]
