"""What a recovery will need of memory, reckoned before any model is loaded; it decides how the recovery goes.

Counted as transformers' Phi-3 works: two models, one of them with integers, and what the forward pass of the largest
batch keeps for the backward pass; or, block by block, one layer of each.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import prod
from pathlib import Path
from typing import Any

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.memory import gib
from phi3_assets.models.directory import tensor_headers
from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.quantising.divergence import batches_of

# Learnt numbers with their gradients and AdamW's two moments, float32.
_BYTES_PER_LEARNT = 16
# Logits of the student, their logarithms of softmax and its gradient, the teacher's probabilities, and one more while
# they are made; float32.
_LOGIT_COPIES = 5
_DTYPE_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
# Integers are int32 while they are unpacked, before and after their zero is taken off.
_UNPACKING_BYTES = 8


class Way(Enum):
    """How a recovery goes, best first; the value is what the log adds of it."""

    WHOLE = ""
    RECOMPUTING = ", recomputing"
    BLOCKWISE = ", block by block"


@dataclass(frozen=True)
class Estimate:
    """Bytes.

    Attributes:
        teacher: Its weights.
        student: Its integers, scales and the optimiser's state.
        weights: Those of the student as numbers, kept for the backward pass.
        activations: What the forward pass of the largest batch keeps, with its logits.
    """

    teacher: int
    student: int
    weights: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.teacher + self.student + self.weights + self.activations


def estimate(merged: Path, quantised: Path, config: Any, tokens: int, way: Way, *, on_gpu: bool) -> Estimate:
    """Reckon it.

    Args:
        merged: The teacher's directory.
        quantised: The student's.
        config: The teacher's transformers configuration.
        tokens: Of the largest batch, padding included.
        way: Whether activations and weights are kept, made again in the backward pass, or those of one layer alone.
        on_gpu: Whether it is on a GPU, where the teacher keeps its own numbers; on a CPU they are float32.
    """
    hidden, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    queries = config.num_attention_heads * (getattr(config, "head_dim", None) or hidden // config.num_attention_heads)
    headers = tensor_headers(merged)
    size = max(_DTYPE_BYTES[tensor["dtype"]] for tensor in headers.values()) if on_gpu else 4
    of_student = tensor_headers(quantised)
    packed = {name: tensor["shape"] for name, tensor in of_student.items() if name.endswith(".qweight")}
    columns = {name.removesuffix(".weight"): tensor["shape"][-1] for name, tensor in headers.items()}
    numbers = {name: shape[0] * columns.get(name.removesuffix(".qweight"), hidden) for name, shape in packed.items()}
    # One of 8 bits, which has a byte in the file, takes two here, and one of fewer takes one.
    integers = {name: numbers[name] * (2 if prod(shape) == numbers[name] else 1) for name, shape in packed.items()}
    learnt = {
        name: prod(tensor["shape"]) for name, tensor in of_student.items() if not name.endswith((".qweight", ".qzeros"))
    }
    parameters = {name: prod(tensor["shape"]) for name, tensor in headers.items()}
    per_layer = (4 * hidden + 6 * queries + 5 * inner) * size
    largest = max(numbers.values())
    logits = _LOGIT_COPIES * 4 * config.vocab_size
    if way is Way.BLOCKWISE:
        return Estimate(
            teacher=_of_one_layer(parameters) * size,
            student=_of_one_layer(integers) + _BYTES_PER_LEARNT * _of_one_layer(learnt) + 2 * 4 * sum(learnt.values()),
            weights=_of_one_layer(numbers) * size + largest * max(_UNPACKING_BYTES, 2 * size),
            activations=tokens * max(per_layer + 4 * hidden * 4, logits),
        )
    if way is Way.RECOMPUTING:
        kept, weights = layers * hidden * size + per_layer, 3 * largest * size
    else:
        kept, weights = layers * per_layer, (sum(numbers.values()) + 2 * largest) * size
    return Estimate(
        teacher=sum(parameters.values()) * size,
        student=sum(integers.values()) + (4 + _BYTES_PER_LEARNT) * sum(learnt.values()),
        weights=weights,
        activations=tokens * (kept + logits),
    )


def _of_one_layer(sizes: dict[str, int]) -> int:
    """The most that tensors of one decoder layer, or one tensor outside them, come to."""
    parts: dict[str, int] = {}
    for name, size in sizes.items():
        layer = re.search(r"\.\d+\.", name)
        part = layer[0] if layer else name
        parts[part] = parts.get(part, 0) + size
    return max(parts.values())


class Memory:
    """What one recovery may take, and what it took."""

    def __init__(self, merged: Path, quantised: Path, rows: CorpusRows, step_rows: int, *, on_gpu: bool) -> None:
        """Reckon it; the libraries must be loaded already, for they count.

        Args:
            merged: The teacher's directory.
            quantised: The student's.
            rows: The corpus in the order of learning.
            step_rows: Rows of one optimiser step.
            on_gpu: Whether a GPU learns.
        """
        import torch
        from transformers import AutoConfig

        self.on_gpu = on_gpu
        self.device = torch.device("cuda" if on_gpu else "cpu")
        self.config: Any = AutoConfig.from_pretrained(merged)
        """The transformers configuration of the model."""
        self._held = 0 if on_gpu else memory.held_bytes()
        tokens = max(
            batch.input_ids.numel()
            for start in range(0, len(rows), step_rows)
            for batch in batches_of([rows[at] for at in range(start, start + step_rows)], self.config)
        )
        self._estimates = {way: estimate(merged, quantised, self.config, tokens, way, on_gpu=on_gpu) for way in Way}
        self.needed = 0
        """Bytes, once chosen."""

    def choose_or_refuse(self, log: Callable[[str], None]) -> Way:
        """The best way that fits: recomputing is a third slower for the same result, block by block is less exact.

        Args:
            log: Takes a line for the user.

        Raises:
            UserError: None fits.
        """
        available, total, where = self._available()
        for way, parts in self._estimates.items():
            self.needed = parts.total + self._held
            if self.needed <= available:
                log(f"Estimate of the recovery: {gib(self.needed)} of memory{way.value}")
                return way
        raise UserError(
            f"The recovery of the quantised model needs about {gib(self.needed)} of memory even block by block "
            f"(teacher {gib(parts.teacher)}, student {gib(parts.student + parts.weights)}, largest batch "
            f"{gib(parts.activations)}), and of {where} {gib(total)} {gib(available)} are available. Set "
            "int4_recovery_steps: 0 to take the quantised model as it is, or run the step on a machine with more."
        )

    def forget_peak(self) -> None:
        """Let `peak` start from now."""
        if self.on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            memory.forget_peak_memory()

    def peak(self) -> int:
        """Most bytes held since `forget_peak`: of the GPU, else resident on the host."""
        if self.on_gpu:
            import torch

            return int(torch.cuda.max_memory_allocated())
        return memory.peak_memory_bytes() or memory.held_bytes()

    def _available(self) -> tuple[int, int, str]:
        if self.on_gpu:
            import torch

            free, total = torch.cuda.mem_get_info()
            return free, total, "the GPU's"
        return memory.available_bytes() + self._held, memory.total_bytes(), "this machine's"
