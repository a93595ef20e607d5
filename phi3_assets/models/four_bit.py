"""A weight as QLoRA's training sees it: rounded to 4 bits by bitsandbytes, and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import read_json, write_json

BLOCK = 64
"""Weights that share a scale, as transformers' BitsAndBytesConfig has it."""
FILE = "four_bit.json"
"""Beside an adapter, which says what it was trained on."""


@dataclass(frozen=True)
class FourBit:
    """How a training held its base model.

    Attributes:
        quant_type: "nf4" or "fp4".
        double_quant: Whether scales are quantised too.
        torch_dtype: What the weights were loaded in before.
    """

    quant_type: str
    double_quant: bool
    torch_dtype: str

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> "FourBit":
        """Of recipe fields."""
        return cls(params["quant_type"], params["double_quant"], params["torch_dtype"])

    @classmethod
    def read(cls, adapter: Path) -> "FourBit | None":
        """What an adapter was trained on; None: on the base model as it is, or nobody says.

        Raises:
            UserError: The file is there, and says something else.
        """
        file = adapter / FILE
        if not file.is_file():
            return None
        try:
            found: FourBit | None = cls(**read_json(file))
        except (TypeError, ValueError):
            found = None
        if (
            found is None
            or found.quant_type not in ("nf4", "fp4")
            or found.torch_dtype not in ("float32", "bfloat16")
            or not isinstance(found.double_quant, bool)
        ):
            raise UserError(
                f"{file} does not say what the adapter was trained on. A training writes quant_type, double_quant and "
                "torch_dtype there; remove the file if it is not from one."
            )
        return found

    def write(self, adapter: Path) -> None:
        """Leave it beside an adapter."""
        write_json(adapter / FILE, asdict(self))

    def seen(self, name: str, weight: Any) -> Any:
        """A tensor of the base model as training saw it: in float32 where it was rounded, else itself."""
        import torch

        if not is_rounded(name, weight.dim()):
            return weight
        loaded = weight.to(getattr(torch, self.torch_dtype))
        return rounded(loaded, self.quant_type, double_quant=self.double_quant)


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
