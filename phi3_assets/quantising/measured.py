"""What is measured of the int4 model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phi3_assets.core.forecast import MemoryMetrics
from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class Int4Metrics(MemoryMetrics):
    """Of the int4 model.

    Attributes:
        bytes: All its files.
        model_bytes: Graph and weights.
        files: Number of files.
        build_seconds: Time that quantising took.
        block_size: Weights that share a scale.
        algorithm: Recipe field int4_algorithm.
        symmetric: Whether the 4-bit grid is centred on zero.
        accuracy_level: Recipe field int4_accuracy_level.
        provider: Where it will run.
        eos_token_ids: Tokens that end an answer.
        max_length: Longest sequence, prompt and answer, in tokens.
        generated_tokens: Generated as a proof that it runs.
    """

    bytes: int
    model_bytes: int
    files: int
    build_seconds: float
    block_size: int
    algorithm: str
    symmetric: bool
    accuracy_level: int
    provider: str
    eos_token_ids: list[int]
    max_length: int
    generated_tokens: int


@dataclass(frozen=True, kw_only=True)
class RecoveryMetrics(Metrics):
    """Of a recovery.

    Attributes:
        recovery_way: "end to end", or "block by block" where both models did not fit into memory.
        recovery_steps: Optimiser steps in which scales and norms were learnt; block by block, those of each layer.
        recovery_divergence_before: Divergence of the quantised model from merged_model in nats, on the same rows before
            and after: mean over positions that predict learnt tokens plus mean over the others.
        recovery_divergence_after: The same at the end.
        recovery_largest_scale_change: Largest relative change of a scale.
        recovery_learnt_numbers: Scales and norms that were learnt.
        recovery_seconds: Time that this process spent learning.
        recovery_peak_memory_bytes: Most memory that it held.
        recovery_estimated_memory_bytes: What was reckoned before.
        recovery_resumed_from_step: Step of the checkpoint that this process began with; 0: it began at the beginning.
    """

    recovery_way: str = "end to end"
    recovery_steps: int
    recovery_divergence_before: float
    recovery_divergence_after: float
    recovery_largest_scale_change: float
    recovery_learnt_numbers: int
    recovery_seconds: float
    recovery_peak_memory_bytes: int
    recovery_estimated_memory_bytes: int
    recovery_resumed_from_step: int

    def sentence(self) -> str:
        """What came of it, for the user."""
        return (
            f"Recovery, {self.recovery_way}: the divergence from merged_model went from "
            f"{self.recovery_divergence_before:.4f} to {self.recovery_divergence_after:.4f} nats in "
            f"{self.recovery_steps} steps; the largest change of a scale is {self.recovery_largest_scale_change:.1%}"
        )


@dataclass(frozen=True, kw_only=True)
class RecoveredInt4Metrics(Int4Metrics, RecoveryMetrics):
    """Of an int4 model that was recovered."""


def read_int4_metrics(metrics: Mapping[str, Any]) -> Int4Metrics:
    """What a manifest of onnx_int4_model says was measured: `RecoveredInt4Metrics` where it was recovered."""
    kind = RecoveredInt4Metrics if "recovery_steps" in metrics else Int4Metrics
    return kind.from_dict(metrics)
