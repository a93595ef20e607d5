"""What a training will need, reckoned before the base model is loaded: memory and disk, from recipe and corpus.

The largest part beside the weights are the numbers that the forward pass keeps for the backward pass. They are counted
layer by layer as transformers' Phi-3 makes them, for the batch with the most tokens. Measured on a 135M-parameter
model and on a tiny one, on CPU, the estimate is within a factor of `core.forecast.TOLERANCE` of the peak.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from phi3_assets.models.directory import tensor_headers

# On a CPU, glibc keeps freed blocks that lie between ones in use: measured at 300 and at 2200 tokens.
_HEAP_OVERHEAD = 4 / 3
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2}
# Libraries load more when a trainer is built and run, and MKL takes room to work in; measured.
_TRAINER_BYTES = 120 * 2**20
# In bfloat16 on a CPU each shape of a product is compiled, and as many stay as `models.environment` lets: those of the
# linear layers and their adapters, forward and back, and of each block of queries, for each length of a batch.
_COMPILED_BYTES, _MOST_COMPILED = 1_500_000, 256
_LINEAR_PRODUCTS, _BLOCK_PRODUCTS, _BLOCK_TOKENS = 24, 7, 64
# 64 weights share a scale in float32; with double quantisation 256 scales share one and take a byte each.
_BYTES_PER_4BIT_WEIGHT = {False: 0.5 + 4 / 64, True: 0.5 + 1 / 64 + 4 / 64 / 256}
# A checkpoint holds the adapter and AdamW's two moments in float32; two are kept while a third is written. The adapter
# is written twice more: by Olive and into the artefact.
_CHECKPOINTS = 3


@dataclass(frozen=True)
class BatchShape:
    """What counts of a batch.

    Attributes:
        tokens: Tokens of all sequences, padding included.
        learnt: Positions with logits.
        masked: Whether it comes with an attention mask of tokens x tokens.
    """

    tokens: int
    learnt: int
    masked: bool

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "BatchShape":
        """Of a batch that `collate` made."""
        return cls(
            tokens=batch["input_ids"].numel(),
            learnt=batch["shift_labels"].numel(),
            masked="attention_mask" in batch,
        )


@dataclass(frozen=True)
class Estimate:
    """Bytes.

    Attributes:
        weights: The base model's.
        adapter: The adapter's weights, gradients and optimiser state.
        activations: Kept for the backward pass of the largest batch, its logits included.
        libraries: Python and all that it loads and compiles; on a GPU it is not in its memory.
        disk: Checkpoints and the adapter.
    """

    weights: int
    adapter: int
    activations: int
    libraries: int
    disk: int

    @property
    def memory(self) -> int:
        """All of it."""
        return self.weights + self.adapter + self.activations + self.libraries


def estimate(
    base_model: Path,
    config: Any,
    params: Mapping[str, Any],
    batch: BatchShape,
    *,
    held: int,
    on_gpu: bool,
    rows: int = 1,
    lengths: int = 1,
) -> Estimate:
    """Reckon what the device that trains will need at its peak.

    Args:
        base_model: Directory of the base model.
        config: Its transformers configuration.
        params: Recipe fields of the step.
        batch: The batch with the most tokens.
        held: Bytes this process holds already, with the libraries loaded.
        on_gpu: Whether a GPU trains; the process's own memory is then not counted.
        rows: Of this batch.
        lengths: Different lengths that batches have.
    """
    shapes = {name: header["shape"] for name, header in tensor_headers(base_model).items()}
    targets = [
        shape
        for name, shape in shapes.items()
        if name.endswith(".weight") and name.split(".")[-2] in params["target_modules"]
    ]
    dora = params["method"] == "dora"
    size = _DTYPE_BYTES[params["torch_dtype"]]
    trained = sum(params["lora_r"] * sum(shape) + (shape[0] if dora else 0) for shape in targets)
    return Estimate(
        weights=_weights_bytes(shapes, params),
        adapter=16 * trained,  # weights, gradients and two moments, float32
        activations=_activation_bytes(config, params, targets, batch, on_gpu=on_gpu),
        libraries=0 if on_gpu else held + _TRAINER_BYTES + (size == 2) * _compiled_bytes(batch.tokens // rows, lengths),
        disk=12 * trained * _CHECKPOINTS + 8 * trained,
    )


def _compiled_bytes(tokens: int, lengths: int) -> int:
    each = _LINEAR_PRODUCTS + _BLOCK_PRODUCTS * (tokens // _BLOCK_TOKENS)
    return min(_MOST_COMPILED, lengths * each) * _COMPILED_BYTES


def _weights_bytes(shapes: Mapping[str, list[int]], params: Mapping[str, Any]) -> int:
    size = float(_DTYPE_BYTES[params["torch_dtype"]])
    linear = _BYTES_PER_4BIT_WEIGHT[params["double_quant"]] if params["method"] == "qlora" else size
    return int(sum(prod(shape) * (linear if _is_layer_weight(name, shape) else size) for name, shape in shapes.items()))


def _is_layer_weight(name: str, shape: list[int]) -> bool:
    """Whether bitsandbytes quantises it: linear layers, but neither embeddings nor the output layer."""
    return len(shape) == 2 and ".layers." in name


def _activation_bytes(
    config: Any, params: Mapping[str, Any], targets: list[list[int]], batch: BatchShape, *, on_gpu: bool
) -> int:
    """Kept by the forward pass, and made on top of it where the backward pass begins."""
    size = _DTYPE_BYTES[params["torch_dtype"]]
    hidden, layers = config.hidden_size, config.num_hidden_layers
    heads, kv_heads = config.num_attention_heads, getattr(config, "num_key_value_heads", config.num_attention_heads)
    queries = heads * (getattr(config, "head_dim", None) or hidden // heads)
    # Both norms keep their input in float32.
    norms = 2 * hidden * 4
    # Queries, keys, values and the result; keys and values once per query head. Without fewer kv heads, values are a
    # view of the layer that made all three, which therefore stays.
    attention = (4 if kv_heads < heads else 6) * queries * size
    # Gate and up, and the gate's activation.
    mlp = 3 * config.intermediate_size * size
    # PEFT's adapter works in float32 on the layer's input; dropout keeps a mask, of float32 on a CPU, and its result.
    kept = 4 if not params["lora_dropout"] else 5 if on_gpu else 8
    adapter = sum(kept * shape[1] + 4 * params["lora_r"] for shape in targets) / layers
    if params["method"] == "dora":
        # It scales the layer's result, and keeps it before and after.
        adapter += sum(3 * size * shape[0] for shape in targets) / layers
    layer = norms + attention + mlp + adapter
    per_token = layer + layers * hidden * size if params["gradient_checkpointing"] else layer * layers
    # Where the backward pass begins: gradients of one layer.
    per_token += (6 * config.intermediate_size + 4 * hidden) * size
    # Logits, and in float32 their copy, their logarithms of softmax and the gradient of these.
    logits = batch.learnt * config.vocab_size * (12 if size == 4 else 16)
    mask = batch.tokens**2 * (size + 1) if batch.masked else 0
    kept_bytes = batch.tokens * per_token + logits + mask
    return int(kept_bytes if on_gpu else kept_bytes * _HEAP_OVERHEAD)
