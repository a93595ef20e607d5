"""The blocking rules of lora_adapter."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe
from phi3_assets.training.measured import TrainingMetrics, read_adapter_metrics


def judge_adapter(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """Training moved the adapter: its loss is finite and its B matrices, zero at first, are not zero."""
    rule = "adapter_is_not_inert"
    adapter = read_adapter_metrics(metrics)
    if adapter.method == "none":
        return [Finding(rule, True, "Nothing was to be trained (method none): merged_model is the base model.")]
    moved = adapter.b_norm_min > 0
    told = f"Smallest norm of {adapter.b_matrices} B matrices: {adapter.b_norm_min:.3g}"
    numbers = {"b_norm_min": adapter.b_norm_min}
    if not isinstance(adapter, TrainingMetrics):
        return [Finding(rule, moved, f"{told}.", numbers)]
    finite = math.isfinite(adapter.final_loss)
    return [
        Finding(
            rule,
            finite and moved,
            f"{told}; loss from {adapter.first_loss:.3g} to {adapter.final_loss:.3g}.",
            numbers | ({"final_loss": adapter.final_loss} if finite else {}),
        )
    ]
