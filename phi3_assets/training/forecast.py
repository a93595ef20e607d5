"""Before a training starts: will it fit, and how long will it take? First reckoned, then tried on the largest batch."""

import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.memory import gib
from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.training.attention import chosen
from phi3_assets.training.batches import Attending, Batch, Row, collate
from phi3_assets.training.estimate import BatchShape, Estimate, estimate


@dataclass(frozen=True)
class Largest:
    """The batch that needs most memory.

    Attributes:
        rows: Its rows.
        batches: What all batches together cost, in batches like this one.
        lengths: Different lengths that batches have.
    """

    rows: list[Row]
    batches: float
    lengths: int


def largest_batch(rows: CorpusRows, size: int) -> Largest:
    """Find the batch of `size` rows with most tokens, padding to its longest row included."""
    lengths = rows.lengths
    parts = [lengths[at : at + size] for at in range(0, len(lengths), size)]
    costs = [len(part) * max(part) for part in parts]
    most = max(costs)
    start = costs.index(most) * size
    return Largest(
        [rows[number] for number in range(start, min(start + size, len(rows)))],
        sum(costs) / most,
        len(set(map(max, parts))),
    )


class Forecast:
    """What one training is expected to need."""

    def __init__(
        self,
        base_model: Path,
        params: Mapping[str, Any],
        rows: CorpusRows,
        log: Callable[[str], None],
        *,
        on_gpu: bool,
        sharing: int = 1,
    ) -> None:
        """Reckon it; the libraries that train must be loaded already, for they count.

        Args:
            base_model: Directory of the base model.
            params: Recipe fields of the step.
            rows: The corpus in training order.
            log: Takes a line for the user.
            on_gpu: Whether a GPU trains.
            sharing: Processes that train in this memory; each GPU has its own.
        """
        import torch
        from transformers import AutoConfig

        self._params, self._log, self._on_gpu, self._sharing = params, log, on_gpu, sharing
        self._largest = largest_batch(rows, params["per_device_train_batch_size"])
        config = AutoConfig.from_pretrained(base_model)
        self._model = Attending.of(config, getattr(torch, params["torch_dtype"]), chosen(params, on_gpu=on_gpu))
        batch = collate(self._largest.rows, 0, self._model)
        self._held = 0 if on_gpu else memory.held_bytes()
        self.estimate: Estimate = estimate(
            base_model,
            config,
            params,
            BatchShape.of(batch),
            held=self._held,
            on_gpu=on_gpu,
            rows=len(self._largest.rows),
            lengths=self._largest.lengths,
        )
        self.seconds = 0.0
        """How long the training will take, known after `dry_run`."""

    def refuse_if_too_large(self, work: Path) -> None:
        """Tell what will be needed, and refuse what this machine does not have.

        Args:
            work: Directory of the checkpoints.

        Raises:
            UserError: Names the numbers and what to lower.
        """
        rows = self._largest.rows
        parts = (
            f"base model {gib(self.estimate.weights)}, adapter with optimiser {gib(self.estimate.adapter)}, largest "
            f"batch ({len(rows)} rows of at most {max(len(row['input_ids']) for row in rows)} tokens) "
            f"{gib(self.estimate.activations)}"
        )
        if not self._on_gpu:
            parts += f", Python and libraries {gib(self.estimate.libraries)}"
        needed = self.estimate.memory
        self._log(f"Estimate: {gib(needed)} of memory ({parts}) and {gib(self.estimate.disk)} of disk")
        self._refuse(needed, f"{self._who} needs about {gib(needed)} of memory ({parts})")
        free = shutil.disk_usage(work).free
        if free < self.estimate.disk:
            raise UserError(
                f"Training needs about {gib(self.estimate.disk)} of disk for checkpoints and the adapter, and {work} "
                f"has {gib(free)} free. Free some space, point PHI3_HOME at a larger disk, or set a lower lora_r."
            )

    def dry_run(self, model: Any, pad_token_id: int) -> None:
        """Run the largest batch forward and backward, and leave no trace of it in the training.

        Raises:
            UserError: With the optimiser's state, which this batch does not need, it would not fit.
        """
        batch = {
            name: tensor.to(model.device)
            for name, tensor in collate(self._largest.rows, pad_token_id, self._model).items()
        }
        self._forget_peak()
        started = time.monotonic()
        with kept_random_states():
            _forward_and_backward(model, batch)
        seconds = time.monotonic() - started
        self.seconds = seconds * self._largest.batches / self._params["processes"]
        peak = peak_bytes(on_gpu=self._on_gpu)
        # One batch, timed once, on a machine that may have other work now or later: half of it or twice is no surprise.
        self._log(
            f"Dry run of the largest batch: {gib(peak)} at most, {seconds:.1f} s; the training will take "
            f"{duration(self.seconds / 2)} to {duration(2 * self.seconds)}, and tells it more exactly while it runs"
        )
        # The two moments are half of what the adapter takes.
        with_moments = peak + self.estimate.adapter // 2
        held = 0 if self._on_gpu else memory.held_bytes()
        self._refuse(with_moments, f"{self._who} needs {gib(with_moments)} of memory, by a dry run", held)

    @property
    def _who(self) -> str:
        return "Training" if self._sharing == 1 else f"Each of {self._sharing} processes"

    def _refuse(self, needed: int, what: str, held: int | None = None) -> None:
        if self._on_gpu:
            import torch

            free, total = torch.cuda.mem_get_info()
            available, where = free + torch.cuda.memory_reserved(), "the GPU's"
        else:
            held = self._held if held is None else held
            available = memory.available_bytes() // self._sharing + held
            total, where = memory.total_bytes(), "this machine's"
        if needed > available:
            each = " to each" if self._sharing > 1 else ""
            raise UserError(
                f"{what}, and of {where} {gib(total)} {gib(available)} are available{each}. "
                + memory.what_to_lower(self._params)
            )

    def _forget_peak(self) -> None:
        if self._on_gpu:
            import torch

            torch.cuda.reset_peak_memory_stats()
        else:
            memory.forget_peak_memory()


def _forward_and_backward(model: Any, batch: Batch) -> None:
    """As the trainer does, which multiplies in the base model's type."""
    import torch

    model.train()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad(set_to_none=True)


@contextmanager
def kept_random_states() -> Iterator[None]:
    """Leave every random generator that a training draws from as it was."""
    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(python)
    np.random.set_state(arrays)


def peak_bytes(*, on_gpu: bool) -> int:
    """Most memory that was held since the dry run began: of the GPU, else resident on the host."""
    import torch

    if on_gpu:
        return int(torch.cuda.max_memory_allocated())
    return memory.peak_memory_bytes() or memory.held_bytes()


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
