"""A weight as QLoRA's training sees it: rounded to 4 bits by bitsandbytes, and back."""

from typing import Any

BLOCK = 64
"""Weights that share a scale, as transformers' BitsAndBytesConfig has it."""


def rounded(weight: Any, quant_type: str, *, double_quant: bool) -> Any:
    """The numbers that products are made with, float32 (rows, columns).

    Args:
        weight: Of a linear layer, in the type that training loaded it in.
        quant_type: "nf4" or "fp4".
        double_quant: Whether scales are quantised too.
    """
    import torch
    from bitsandbytes import functional

    integers, state = functional.quantize_4bit(
        weight, blocksize=BLOCK, compress_statistics=double_quant, quant_type=quant_type
    )
    state.dtype = torch.float32  # of what comes back
    return functional.dequantize_4bit(integers, state)


def is_rounded(name: str, dimensions: int) -> bool:
    """Whether training holds this tensor in 4 bits: the linear layers, and neither embeddings nor the output layer."""
    return dimensions == 2 and ".layers." in name
