"""A quantised model whose integers stand still while the scales of its blocks, and its norms, can be learnt.

Olive's own quantised layers keep scales as buffers and unpack every weight at each use. Here each block of a weight is
integers * scale * (1 + change): the change is learnt, from zero, and the integers are kept in a byte or two each.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from phi3_assets.core.files import copy_file


def load_student(quantised: Path, dtype: Any) -> Any:
    """Load what Olive's Gptq and Rtn left, ready to be learnt; nothing but changes of scales and norms is trainable.

    Args:
        quantised: Directory that Olive saved.
        dtype: The torch dtype of its arithmetic; what is learnt is float32.

    Returns:
        A causal language model of transformers, on the CPU.
    """
    from olive.model import HfModelHandler

    student = HfModelHandler(model_path=str(quantised)).load_model(cache_model=False)
    make_learnable(student, dtype)
    return student


def make_learnable(model: Any, dtype: Any) -> None:
    """Put blocks that can be learnt in the place of Olive's quantised layers; only their changes and norms train.

    Args:
        model: A module with layers of Olive's below it.
        dtype: As for `load_student`.
    """
    import torch
    from olive.common.quant.nn import QuantEmbedding, QuantLinear

    model.requires_grad_(False)
    classes = _classes()
    shared: dict[int, Any] = {}  # tied embeddings are two layers with one weight
    for name, module in list(model.named_modules()):
        if not isinstance(module, QuantEmbedding | QuantLinear):
            continue
        key = module.qweight.data_ptr()
        if key not in shared:
            shared[key] = classes.blocks(*_unpacked(module), dtype)
        kind = classes.embedding if isinstance(module, QuantEmbedding) else classes.linear
        bias = None if isinstance(module, QuantEmbedding) else module.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, kind(shared[key], bias))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "norm" in name:
            parameter.data = parameter.data.to(torch.float32)
            parameter.requires_grad_(True)


def learnt(student: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and tensor of everything that is learnt: changes end in `.change`; a tied one comes once.

    Args:
        student: A module that was made learnable.
        prefix: What its own name is in the model, with a dot behind it.
    """
    for name, parameter in student.named_parameters(prefix.removesuffix(".")):
        if parameter.requires_grad:
            yield name, parameter


def learnt_tensors(student: Any, prefix: str = "") -> dict[str, Any]:
    """What was learnt, under the names that Olive's file has for it; arguments as for `learnt`."""
    blocks = _classes().blocks
    new = {}
    for name, module in student.named_modules(remove_duplicate=False, prefix=prefix.removesuffix(".")):
        if isinstance(module, blocks):
            new[f"{name.removesuffix('.weight')}.scales"] = module.learnt_scales().detach()
    new |= {name: one.detach() for name, one in learnt(student, prefix) if not name.endswith(".change")}
    return new


def write_learnt(new: Mapping[str, Any], quantised: Path, target: Path) -> None:
    """Copy a quantised model with the scales and norms that were learnt; every other byte of a tensor stays.

    Args:
        new: From `learnt_tensors`.
        quantised: What the student was loaded from.
        target: An empty directory.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    for path in quantised.iterdir():
        if path.suffix != ".safetensors":
            copy_file(path, target / path.name)
            continue
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata()
        for name in tensors.keys() & new.keys():
            tensors[name] = new[name].to("cpu").reshape(tensors[name].shape).contiguous()
        save_file(tensors, target / path.name, metadata)


def _unpacked(module: Any) -> tuple[Any, Any]:
    """Integers relative to their block's zero, (rows, columns), and scales, float32 (rows, blocks)."""
    import torch
    from olive.common.quant.utils import unpack_from_uint8

    quantizer = module.quantizer
    integers = unpack_from_uint8(module.qweight, quantizer.bits, (module.rows, module.cols))
    zeros = (
        torch.full(module.scales.shape, quantizer.midq, dtype=torch.int32)
        if module.qzeros is None
        else unpack_from_uint8(module.qzeros, quantizer.bits, module.scales.shape)
    )
    integers = (integers.reshape(*module.scales.shape, -1) - zeros[..., None]).reshape(module.rows, module.cols)
    # In 8 bits the distance from zero may take nine.
    return integers.to(torch.int8 if quantizer.bits < 8 else torch.int16), module.scales.to(torch.float32)


class _Classes:
    """The layers, as classes of torch; made when torch is first needed, since importing it takes seconds."""

    def __init__(self) -> None:
        import torch
        from torch.nn import functional

        class Dequantise(torch.autograd.Function):
            """Weight of all blocks; it keeps the integers for its gradient and not their products."""

            @staticmethod
            def forward(ctx: Any, change: Any, integers: Any, scales: Any, dtype: Any) -> Any:
                ctx.save_for_backward(integers, scales)
                weight = integers.view(*scales.shape, -1) * (scales * (1 + change))[..., None]
                return weight.view(integers.shape).to(dtype)

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> tuple[Any, None, None, None]:
                integers, scales = ctx.saved_tensors
                products = gradients[0].to(torch.float32) * integers
                return products.reshape(*scales.shape, -1).sum(-1) * scales, None, None, None

        class Blocks(torch.nn.Module):
            """A weight in blocks."""

            integers: torch.Tensor
            scales: torch.Tensor

            def __init__(self, integers: Any, scales: Any, dtype: Any) -> None:
                super().__init__()
                self.register_buffer("integers", integers)
                self.register_buffer("scales", scales)
                self.change = torch.nn.Parameter(torch.zeros_like(scales))
                self.dtype = dtype

            def learnt_scales(self) -> Any:
                return self.scales * (1 + self.change)

            def forward(self) -> Any:
                return Dequantise.apply(  # type: ignore[no-untyped-call]
                    self.change, self.integers, self.scales, self.dtype
                )

            def rows(self, ids: Any) -> Any:
                """Rows `ids` of the weight, without the others."""
                # By torch's own lookup, whose gradient on a CPU is summed in the same order in every run.
                scales = functional.embedding(ids, self.scales) * (1 + functional.embedding(ids, self.change))
                integers = functional.embedding(ids, self.integers).view(*scales.shape, -1)
                return (integers * scales[..., None]).flatten(-2).to(self.dtype)

        class Linear(torch.nn.Module):
            """A linear layer."""

            def __init__(self, weight: Blocks, bias: Any) -> None:
                super().__init__()
                self.weight, self.bias = weight, bias

            def forward(self, inputs: Any) -> Any:
                # A norm that is learnt in float32 hands on float32.
                weight = self.weight()
                return functional.linear(inputs.to(weight.dtype), weight, self.bias)

        class Embedding(torch.nn.Module):
            """An embedding."""

            def __init__(self, weight: Blocks, bias: None) -> None:
                super().__init__()
                self.weight = weight

            def forward(self, ids: Any) -> Any:
                return self.weight.rows(ids)

        self.blocks, self.linear, self.embedding = Blocks, Linear, Embedding


_classes = cache(_Classes)
