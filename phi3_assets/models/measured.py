"""What is measured of a model directory, and of merging an adapter into it."""

from dataclasses import dataclass

from phi3_assets.core.forecast import MemoryMetrics
from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class ModelMetrics(Metrics):
    """Numbers and names of a model directory.

    Attributes:
        parameters: Numbers in its weights.
        architecture: Class of transformers.
        layers: Decoder layers.
        hidden_size: Numbers of a token between layers.
        vocabulary: Tokens that the output layer tells apart.
        context_length: Longest sequence, in tokens.
        eos_token_ids: Tokens that end an answer.
        dtype: Of most weights.
        weights_bytes: Size of the weights' files.
    """

    parameters: int
    architecture: str
    layers: int
    hidden_size: int
    vocabulary: int
    context_length: int
    eos_token_ids: list[int]
    dtype: str
    weights_bytes: int


@dataclass(frozen=True, kw_only=True)
class MergeMetrics(ModelMetrics, MemoryMetrics):
    """The merged model, and how exact merging was; None where there was nothing to merge (method none).

    Attributes:
        layers_changed: Layers that the adapter changes.
        largest_change: Largest change of a layer, relative to its numbers.
        least_change_kept: Least share of a layer's change that is in the merged model, measured along it.
        change_needed: Least share that is allowed.
        largest_rounding: Largest error of a layer by rounding, relative to its change.
        max_logit_difference: Where the adapter changes more than linear layers: largest difference of a logit between
            merged and base + adapter.
        logit_tolerance: Largest that is allowed.
        max_logit_change: Largest difference of a logit between merged and base.
    """

    layers_changed: int | None = None
    largest_change: float | None = None
    least_change_kept: float | None = None
    change_needed: float | None = None
    largest_rounding: float | None = None
    max_logit_difference: float | None = None
    logit_tolerance: float | None = None
    max_logit_change: float | None = None
