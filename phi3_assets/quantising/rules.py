"""The rules of onnx_int4_model: what blocks, and what a person should look at."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe
from phi3_assets.quantising.measured import RecoveredInt4Metrics, read_int4_metrics


def judge_int4(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """It ran in ONNX Runtime GenAI where it was made, and ends its answers at tokens that are known."""
    int4 = read_int4_metrics(metrics)
    return [
        Finding(
            "int4_runs",
            int4.generated_tokens > 0 and bool(int4.eos_token_ids),
            f"{int4.generated_tokens} tokens generated in ONNX Runtime GenAI where it was made; answers end "
            f"at {int4.eos_token_ids or 'no token at all'}; graph and weights take "
            f"{int4.model_bytes / 1e6:.1f} MB.",
            {"generated_tokens": int4.generated_tokens, "model_megabytes": int4.model_bytes / 1e6},
        )
    ]


def recovery_helped(metrics: Mapping[str, Any]) -> Finding:
    """Recovery brought int4 nearer to merged; whether near enough, the gate says, on held-out answers."""
    rule = "recovery_helped"
    int4 = read_int4_metrics(metrics)
    if not isinstance(int4, RecoveredInt4Metrics):
        return Finding(rule, True, "Nothing was recovered (int4_recovery_steps 0).")
    before, after = int4.recovery_divergence_before, int4.recovery_divergence_after
    return Finding(
        rule,
        after < before,
        f"{int4.sentence()}.",
        {"divergence_before_nats": before, "divergence_after_nats": after},
    )
