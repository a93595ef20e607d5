"""Random models in the shapes of real ones, written tensor by tensor: a rehearsal of what the weights will ask for.

`phi3-mini` has all 3.8 billion parameters of Phi-3-mini-4k, in bfloat16 as the real one; `phi3-mini-2-layers` has its
widths and two of its 32 layers. The others have what is special about newer models of the family at a size for tests:
Phi-3.5-mini's long rotary positions, and Phi-4-mini's tied embeddings and rotation of a part of each head beside them.
Shapes: config.json of microsoft/Phi-3-mini-4k-instruct, Phi-3.5-mini-instruct and Phi-4-mini-instruct.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_assets.models.shards import write_shards

_MINI = {
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "sliding_window": 2047,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
_SMALL = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 1024,
    "original_max_position_embeddings": 512,
    "initializer_range": 0.1,  # as in `random_phi3`
    "dtype": "float32",
}


def _long_positions(rotated: int) -> dict[str, Any]:
    """Factors of LongRoPE for so many rotated numbers of a head: short sequences rotate as they are."""
    pairs = rotated // 2
    return {
        "rope_parameters": {
            "rope_type": "longrope",
            "type": "longrope",  # as ModelBuilder of onnxruntime-genai 0.14 asks for it
            "rope_theta": 10000.0,
            "short_factor": [1.0] * pairs,
            "long_factor": [1.0 + at / pairs for at in range(pairs)],
        }
    }


SHAPES: dict[str, dict[str, Any]] = {
    "phi3-mini": _MINI,
    "phi3.5-small": _SMALL | {"num_key_value_heads": 2, "tie_word_embeddings": False} | _long_positions(64),
    "phi4-small": _SMALL
    | {"num_key_value_heads": 1, "tie_word_embeddings": True, "partial_rotary_factor": 0.75}
    | _long_positions(48),
}
_FEWER_LAYERS = re.compile(r"phi3-mini-([1-9]|[12][0-9]|3[01])-layers?")


def shape_of(variant: str) -> Mapping[str, Any] | None:
    """Fields of the model's configuration; None: no such shape."""
    if fewer := _FEWER_LAYERS.fullmatch(variant):
        return _MINI | {"num_hidden_layers": int(fewer[1])}
    return SHAPES.get(variant)


def write_model(config: Any, seed: int, output: Path, begin: Callable[[int], None]) -> None:
    """Write weights and configuration; the same seed gives the same bytes, and no model is ever whole in memory.

    Args:
        config: The transformers configuration.
        seed: Each tensor is drawn from a generator of its own, seeded by this and its place.
        output: A directory.
        begin: Called once, with the bytes of the weights that will be written.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        shapes = AutoModelForCausalLM.from_config(config).state_dict()
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    config.architectures = ["Phi3ForCausalLM"]

    def draw(name: str) -> Any:
        if len(shapes[name].shape) == 1:  # a norm
            return torch.ones(shapes[name].shape, dtype=config.dtype)
        place = torch.Generator().manual_seed(seed * len(shapes) + list(shapes).index(name))
        numbers = torch.empty(shapes[name].shape, dtype=config.dtype)
        for row in numbers:  # in float32 a whole embedding of a real model would be the largest thing in memory
            row.copy_(torch.randn(row.shape, generator=place) * config.initializer_range)
        return numbers

    sizes = {name: shape.numel() * config.dtype.itemsize for name, shape in shapes.items()}
    begin(sum(sizes.values()))
    write_shards(output, sizes, draw)
    config.save_pretrained(output)
