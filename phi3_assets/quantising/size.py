"""How many bytes an int4 model will have, reckoned from the model that it is made of, before anything is quantised.

Counted as Olive's passes and ModelBuilder of onnxruntime-genai 0.14 lay it out: integers, a scale for each block and,
off centre, a zero of as many bits; norms; the tables of rotary positions; and the graph.
"""

import json
from collections.abc import Collection, Mapping
from math import ceil, prod
from pathlib import Path
from typing import Any

from phi3_assets.models.directory import tensor_headers

# A little more than was seen: 19 and 263 kB for models of 2 and 30 layers.
_GRAPH_BYTES = 3_000
_GRAPH_BYTES_PER_LAYER = 8_800
# What Olive's ModelBuilder does of itself.
_DEFAULT_BLOCK_SIZE = 32


def int4_bytes(model: Path, params: Mapping[str, Any], exact: Collection[str] = ()) -> int:
    """Graph and weights of what "gptq" makes.

    Args:
        model: The model, or one of the same layers; Hugging Face layout.
        params: Recipe fields of the step onnx_int4_model.
        exact: Full names of the linear layers that get twice int4_bits.
    """
    number = _number_bytes(params)
    size, symmetric = params["int4_block_size"], params["int4_symmetric"]
    total = _rest(model, number)
    for name, shape in _matrices(model).items():
        bits = params["int4_embedding_bits"] if _is_embedding(name) else params["int4_bits"] * (1 + (name in exact))
        total += quantised_bytes(shape, bits, size, number, symmetric=symmetric)
    return total


def default_bytes(model: Path, params: Mapping[str, Any]) -> int:
    """Graph and weights of what Olive's ModelBuilder makes by itself: 4 bits, and the input embeddings in full.

    Not more than it is, so that a share of it holds.
    """
    number = _number_bytes(params)
    total = _rest(model, number) - _GRAPH_BYTES
    matrices = _matrices(model)
    (embeddings,) = (name for name in matrices if name.endswith("embed_tokens"))
    total += prod(matrices[embeddings]) * number
    if "lm_head" not in matrices:  # tied; the builder writes both
        matrices["lm_head"] = matrices[embeddings]
    for name, shape in matrices.items():
        if name != embeddings:
            total += quantised_bytes(shape, 4, _DEFAULT_BLOCK_SIZE, number, symmetric=True)
    return total


def quantised_bytes(shape: tuple[int, int], bits: int, block_size: int, number: int, *, symmetric: bool) -> int:
    """One matrix (rows, columns) in so many bits; `number` bytes has a scale."""
    rows, columns = shape
    blocks = columns // block_size
    zeros = 0 if symmetric else rows * ceil(blocks * bits / 8)
    return rows * columns * bits // 8 + rows * blocks * number + zeros


def _number_bytes(params: Mapping[str, Any]) -> int:
    """Of numbers that are not quantised: float16 on a GPU."""
    return 2 if params["execution_provider"] == "cuda" else 4


def _matrices(model: Path) -> dict[str, tuple[int, int]]:
    return {
        name.removesuffix(".weight"): (tensor["shape"][0], tensor["shape"][1])
        for name, tensor in tensor_headers(model).items()
        if len(tensor["shape"]) == 2
    }


def _is_embedding(name: str) -> bool:
    return name == "lm_head" or name.endswith("embed_tokens")


def _rest(model: Path, number: int) -> int:
    """Norms, tables of positions, graph."""
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    vectors: int = sum(prod(tensor["shape"]) for tensor in tensor_headers(model).values() if len(tensor["shape"]) == 1)
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    # Cosines and sines of half a head each.
    positions: int = config["max_position_embeddings"] * head_size
    layers: int = config["num_hidden_layers"]
    return (vectors + positions) * number + _GRAPH_BYTES + _GRAPH_BYTES_PER_LAYER * layers
