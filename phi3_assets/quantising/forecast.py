"""What a recovery will need of memory, reckoned before any model is loaded; more than there is, is refused.

Counted as transformers' Phi-3 works: two models, one of them with integers, and what the forward pass of the largest
batch keeps for the backward pass.
"""

from collections.abc import Callable
from dataclasses import dataclass
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


def estimate(merged: Path, quantised: Path, config: Any, tokens: int, *, on_gpu: bool, checkpointing: bool) -> Estimate:
    """Reckon it.

    Args:
        merged: The teacher's directory.
        quantised: The student's.
        config: The teacher's transformers configuration.
        tokens: Of the largest batch, padding included.
        on_gpu: Whether it is on a GPU, where the teacher keeps its own numbers; on a CPU they are float32.
        checkpointing: Whether activations and weights are made again in the backward pass, layer by layer.
    """
    hidden, layers, inner = config.hidden_size, config.num_hidden_layers, config.intermediate_size
    queries = config.num_attention_heads * (getattr(config, "head_dim", None) or hidden // config.num_attention_heads)
    headers = tensor_headers(merged)
    size = max(_DTYPE_BYTES[tensor["dtype"]] for tensor in headers.values()) if on_gpu else 4
    parameters = sum(prod(tensor["shape"]) for tensor in headers.values())
    of_student = tensor_headers(quantised)
    packed = {name: tensor["shape"] for name, tensor in of_student.items() if name.endswith(".qweight")}
    columns = {name.removesuffix(".weight"): tensor["shape"][-1] for name, tensor in headers.items()}
    # Two numbers of 4 bits lie in a byte of the file and take one each here; one of 8 bits takes two.
    integers = 2 * sum(prod(shape) for shape in packed.values())
    numbers = {name: shape[0] * columns.get(name.removesuffix(".qweight"), hidden) for name, shape in packed.items()}
    learnt = sum(
        prod(tensor["shape"]) for name, tensor in of_student.items() if not name.endswith((".qweight", ".qzeros"))
    )
    per_layer = (4 * hidden + 6 * queries + 5 * inner) * size
    largest = max(numbers.values()) * size
    if checkpointing:
        kept = layers * hidden * size + per_layer
        weights = 3 * largest
    else:
        kept = layers * per_layer
        weights = sum(numbers.values()) * size + 2 * largest
    return Estimate(
        teacher=parameters * size,
        student=integers + (4 + _BYTES_PER_LEARNT) * learnt,
        weights=weights,
        activations=tokens * (kept + _LOGIT_COPIES * 4 * config.vocab_size),
    )


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
        from transformers import AutoConfig

        self._on_gpu = on_gpu
        self._held = 0 if on_gpu else memory.held_bytes()
        config = AutoConfig.from_pretrained(merged)
        tokens = max(
            batch.input_ids.numel()
            for start in range(0, len(rows), step_rows)
            for batch in batches_of([rows[at] for at in range(start, start + step_rows)], config.hidden_size)
        )
        self._estimates = {
            checkpointing: estimate(merged, quantised, config, tokens, on_gpu=on_gpu, checkpointing=checkpointing)
            for checkpointing in (False, True)
        }
        self.needed = 0
        """Bytes, once chosen."""

    def choose_or_refuse(self, log: Callable[[str], None]) -> bool:
        """Whether activations must be made again to fit (a third slower, the same result).

        Args:
            log: Takes a line for the user.

        Raises:
            UserError: Even then it would not fit.
        """
        available, total, where = self._available()
        for checkpointing, parts in self._estimates.items():
            self.needed = parts.total + self._held
            if self.needed <= available:
                log(f"Estimate of the recovery: {gib(self.needed)} of memory{', recomputing' if checkpointing else ''}")
                return checkpointing
        raise UserError(
            f"The recovery of the quantised model needs about {gib(self.needed)} of memory (teacher "
            f"{gib(parts.teacher)}, student {gib(parts.student + parts.weights)}, largest batch "
            f"{gib(parts.activations)}), and of {where} {gib(total)} {gib(available)} are available. Set "
            "int4_recovery_steps: 0 to take the quantised model as it is, or run the step on a machine with more."
        )

    def forget_peak(self) -> None:
        """Let `peak` start from now."""
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            memory.forget_peak_memory()

    def peak(self) -> int:
        """Most bytes held since `forget_peak`: of the GPU, else resident on the host."""
        if self._on_gpu:
            import torch

            return int(torch.cuda.max_memory_allocated())
        return memory.peak_memory_bytes() or memory.held_bytes()

    def _available(self) -> tuple[int, int, str]:
        if self._on_gpu:
            import torch

            free, total = torch.cuda.mem_get_info()
            return free, total, "the GPU's"
        return memory.available_bytes() + self._held, memory.total_bytes(), "this machine's"
