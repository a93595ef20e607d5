"""Asset checks of the models: they judge the numbers that a step measured, and block what must not travel on."""

import math

import dagster as dg

from phi3_assets.assets.model import base_model, lora_adapter
from phi3_assets.checks.data import result
from phi3_assets.ops.planning import Record
from phi3_assets.ops.running import metrics_of
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.training.measured import TrainingMetrics, read_adapter_metrics


@dg.asset_check(asset=base_model, blocking=True)
def layout_keeps_the_logits(store: ArtifactStore, base_model: Record) -> dg.AssetCheckResult:
    """A model laid out anew as Phi-3 answers exactly as its source does."""
    difference = metrics_of(store, base_model).get("max_logit_difference")
    if difference is None:
        return result(True, "The weights are the source's own; nothing was laid out anew.")
    return result(
        difference <= 1e-4, f"Largest difference of a logit: {difference:g}.", max_logit_difference=difference
    )


@dg.asset_check(asset=lora_adapter, blocking=True)
def adapter_is_not_inert(store: ArtifactStore, lora_adapter: Record) -> dg.AssetCheckResult:
    """Training moved the adapter: its loss is finite and its B matrices, zero at first, are not zero."""
    metrics = read_adapter_metrics(metrics_of(store, lora_adapter))
    norm = metrics.b_norm_min
    if metrics.method == "none":
        return result(True, "Nothing was to be trained (method none): merged_model is the base model.")
    said = f"Smallest norm of {metrics.b_matrices} B matrices: {norm:.3g}"
    if not isinstance(metrics, TrainingMetrics):
        return result(norm > 0, f"{said}.", b_norm_min=norm)
    return result(
        math.isfinite(metrics.final_loss) and norm > 0,
        f"{said}; loss from {metrics.first_loss:.3g} to {metrics.final_loss:.3g}.",
        b_norm_min=norm,
        final_loss=metrics.final_loss,
    )


ALL = [layout_keeps_the_logits, adapter_is_not_inert]
