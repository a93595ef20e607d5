"""What is measured of an adapter and of the training that made it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class AdapterMetrics(Metrics):
    """Of any adapter: trained, brought by the user, or one that changes nothing.

    Attributes:
        method: lora, dora or qlora; "given": the user's; "none": it changes nothing.
        trainable_parameters: Numbers in it.
        total_parameters: With those of the base model.
        b_norm_min: Smallest Frobenius norm of a B matrix.
        b_norm_max: Largest.
        b_matrices: Number of B matrices.
    """

    method: str
    trainable_parameters: int
    total_parameters: int
    b_norm_min: float
    b_norm_max: float
    b_matrices: int


@dataclass(frozen=True, kw_only=True)
class TrainingMetrics(AdapterMetrics):
    """Of an adapter that was trained here.

    Attributes:
        steps: Optimiser steps; fewer than planned if it ended early.
        epochs: Passes over the corpus.
        replay_texts: Texts of the base model's own that were learnt along.
        first_loss: Loss of the first optimiser step, in nats per learnt token.
        final_loss: Of the last one.
        eval_rows: Held-out rows; None, as the next two: there were none.
        best_step: After which step the adapter was that is kept.
        eval_loss: Its loss on the held-out rows, in nats per learnt token.
        tokens_per_s: Tokens trained on in a second, of the corpus and of these texts.
        supervised_tokens_per_s: Those with a label.
        train_seconds: Time that this process spent training.
        estimated_seconds: What the dry run foretold.
        peak_memory_bytes: Most memory held, of one process.
        estimated_memory_bytes: What was reckoned before.
        estimated_disk_bytes: For checkpoints and the adapter.
        device: Name of the device.
        dtype: Of weights and arithmetic.
        resumed_from_step: Step of the checkpoint that this process began with; 0: it began at the beginning.
    """

    steps: int
    epochs: float
    replay_texts: int = 0
    first_loss: float
    final_loss: float
    eval_rows: int | None = None
    best_step: int | None = None
    eval_loss: float | None = None
    tokens_per_s: float
    supervised_tokens_per_s: float
    train_seconds: float
    estimated_seconds: float
    peak_memory_bytes: int
    estimated_memory_bytes: int
    estimated_disk_bytes: int
    device: str
    dtype: str
    resumed_from_step: int


def read_adapter_metrics(metrics: Mapping[str, Any]) -> AdapterMetrics:
    """What a manifest of lora_adapter says was measured: `TrainingMetrics` where something was trained."""
    kind = AdapterMetrics if metrics["method"] in ("given", "none") else TrainingMetrics
    return kind.from_dict(metrics)
