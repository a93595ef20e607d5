"""How large a model is in memory, from the headers of its weights."""

from math import prod
from pathlib import Path

from phi3_assets.models.directory import tensor_headers

NUMBER_BYTES = {"F32": 4, "BF16": 2, "F16": 2}


def memory_bytes(directory: Path, number_bytes: int | None = None) -> int:
    """Bytes of all weights.

    Args:
        directory: Of a model or an adapter.
        number_bytes: Of a number; None: as in the files.
    """
    total: int = sum(
        prod(tensor["shape"]) * (number_bytes or NUMBER_BYTES.get(tensor["dtype"], 1))
        for tensor in tensor_headers(directory).values()
    )
    return total


def disk_bytes(directory: Path) -> int:
    """Bytes of the weights' files."""
    return sum(file.stat().st_size for file in directory.glob("*.safetensors"))
