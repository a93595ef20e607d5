"""What quantising did to the model of a bundle, in a few sentences that its card and release.json carry."""

from collections.abc import Mapping
from typing import Any

from phi3_assets.core.manifest import Manifest
from phi3_assets.quantising.measured import RecoveredInt4Metrics, read_int4_metrics


def certificate(int4: Manifest, scores: Mapping[str, Any]) -> list[str]:
    """Bytes, answers against merged's, what was learnt, and on which machine: a sentence each.

    Args:
        int4: The manifest of onnx_int4_model.
        scores: What scores.json holds.
    """
    metrics, params = read_int4_metrics(int4.metrics), int4.call.params
    variants = scores["variants"]
    embeddings = f", embeddings in {params['int4_embedding_bits']} bits" if metrics.algorithm == "gptq" else ""
    sentences = [
        f"Graph and weights take {metrics.model_bytes / 1e6:.1f} MB: {metrics.algorithm}, blocks of "
        f"{metrics.block_size}{embeddings}.",
        f"Exact match is {variants['int4']['exact_match']:.1%}, and {variants['merged']['exact_match']:.1%} for the "
        f"merged model, which is not quantised, on {scores['items']} questions{_interval(scores)}.",
    ]
    if isinstance(metrics, RecoveredInt4Metrics):
        sentences.append(
            f"Recovery: {metrics.recovery_learnt_numbers:,} scales and norms learnt to answer like the merged model in "
            f"{metrics.recovery_steps} steps, {metrics.recovery_way}. The divergence from it went from "
            f"{metrics.recovery_divergence_before:.4f} to {metrics.recovery_divergence_after:.4f} nats; the largest "
            f"change of a scale is {metrics.recovery_largest_scale_change:.1%}. No integer was changed."
        )
    if machine := int4.ran.get("gpu") or int4.ran.get("cpu"):
        sentences.append(f"Quantised on {machine}.")
    return sentences


def _interval(scores: Mapping[str, Any]) -> str:
    """The 95 % interval of the difference."""
    for one in scores["comparisons"]:
        if (one["metric"], one["candidate"], one["reference"]) == ("exact_match", "int4", "merged"):
            ends = f"{_points(one['low'])} to {_points(one['high'])}"
            return f" (difference {_points(one['difference'])}, 95 % interval {ends})"
    return ""


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"
