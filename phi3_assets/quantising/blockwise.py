"""Recovery of a model that is too large to be learnt end to end: one decoder layer after the other.

Each quantised layer learns to turn the hidden states that the quantised layers before it give into those that the
teacher's layer gives. In memory are one layer of each model; the hidden states are in files of the work directory. The
embeddings and the last norm stay as they were.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi3_assets.core.step import StepContext
from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.quantising.blocks import learnt, learnt_tensors, write_learnt
from phi3_assets.quantising.decoder import Decoder
from phi3_assets.quantising.divergence import Batch, batches_of, divergence_from, probabilities_of
from phi3_assets.quantising.forecast import Memory
from phi3_assets.quantising.hidden import Hidden
from phi3_assets.quantising.learning import LOG_STEPS, PROBE_ROWS, STEP_ROWS, optimizer_of, refuse_broken, set_rate
from phi3_assets.quantising.measured import RecoveryMetrics
from phi3_assets.quantising.saved import Saved
from phi3_assets.training.checkpoints import StopRequest

MOST_TOKENS = 65_536
"""Of the rows whose hidden states are kept; a layer learns from them again and again."""


def recover_blockwise(
    ctx: StepContext,
    quantised: Path,
    rows: CorpusRows,
    target: Path,
    memory: Memory,
    saved: Saved,
    stop: StopRequest,
) -> RecoveryMetrics:
    """As `recovery.recover`, layer by layer; a checkpoint is written after each.

    Args:
        ctx: Of the step.
        quantised: What Olive's Gptq and Rtn left.
        rows: The corpus in the order of learning.
        target: An empty directory.
        memory: What it may take.
        saved: Its checkpoints.
        stop: What holds signals back.
    """
    return _Blockwise(ctx, quantised, rows, memory, saved, stop).run(target)


class _Blockwise:
    """One such recovery."""

    def __init__(
        self, ctx: StepContext, quantised: Path, rows: CorpusRows, memory: Memory, saved: Saved, stop: StopRequest
    ) -> None:
        import torch

        self.ctx, self.quantised, self.memory, self.saved, self.stop = ctx, quantised, memory, saved, stop
        self.steps = ctx.params["int4_recovery_steps"]
        config = memory.config
        dtype = config.dtype or torch.float32 if memory.on_gpu else torch.float32
        self.teacher, self.student = (
            Decoder(directory, config, dtype, memory.device) for directory in (ctx.inputs["merged_model"], quantised)
        )
        self.learning = list(_steps(rows, config))
        probe = batches_of([rows[at] for at in range(min(PROBE_ROWS, len(rows)))], config)
        self.batches = [*probe, *(batch for step in self.learning for batch in step)]
        self.probe = len(probe)
        folder = ctx.work / "hidden"
        self.right, self.made = (
            Hidden(folder / f"{name}.bin", self.batches, config.hidden_size) for name in ("teacher", "student")
        )
        self.unlearnt = Hidden(folder / "before.bin", probe, config.hidden_size)

    def run(self, target: Path) -> RecoveryMetrics:
        done, state = self.saved.load("cpu")
        kept: dict[str, Any] = state.get("learnt", {})
        self.memory.forget_peak()
        started = time.monotonic()
        self.right.advance(lambda _, batch: self.teacher.embed(batch))
        for hidden in (self.made, self.unlearnt):
            hidden.advance(lambda _, batch: self.student.embed(batch))
        self.stop.arm()
        new: dict[str, Any] = {}
        for at, name in enumerate(self.teacher.layers):
            self._advance(self.right, self.teacher, self.teacher.part(name))
            layer = self.student.part(name)
            self._advance(self.unlearnt, self.student, layer)
            self._take_up(layer, name, kept) if at < done else self._learn(layer, at)
            self._advance(self.made, self.student, layer)
            new |= {full: tensor.cpu() for full, tensor in learnt_tensors(layer, f"{name}.").items()}
            kept |= {full: tensor.detach().cpu() for full, tensor in learnt(layer, f"{name}.")}
            if at >= done:
                self.saved.save(at + 1, learnt=kept)
                self.saved.heed(announced=self.ctx.interruption.announced())
        before, after = (self._divergence(hidden) for hidden in (self.unlearnt, self.made))
        self.stop.deliver()
        write_learnt(new, self.quantised, target)
        changes = [tensor for name, tensor in kept.items() if name.endswith(".change")]
        recovered = RecoveryMetrics(
            recovery_way="block by block",
            recovery_steps=self.steps,
            recovery_divergence_before=before,
            recovery_divergence_after=after,
            recovery_largest_scale_change=max(float(change.abs().max()) for change in changes),
            recovery_learnt_numbers=sum(tensor.numel() for tensor in kept.values()),
            recovery_seconds=time.monotonic() - started,
            recovery_peak_memory_bytes=self.memory.peak(),
            recovery_estimated_memory_bytes=self.memory.needed,
            recovery_resumed_from_step=done * self.steps,
        )
        self.ctx.log(recovered.sentence())
        return recovered

    def _advance(self, hidden: Hidden, decoder: Decoder, layer: Any) -> None:
        hidden.advance(lambda states, batch: decoder.run(layer, states, batch))

    def _take_up(self, layer: Any, name: str, kept: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for full, tensor in learnt(layer, f"{name}."):
                tensor.copy_(kept[full])

    def _learn(self, layer: Any, at: int) -> None:
        optimizer = optimizer_of(layer)
        starts = [self.probe]
        for batches in self.learning:
            starts.append(starts[-1] + len(batches))
        for step in range(self.steps):
            set_rate(optimizer, step, self.steps)
            loss = 0.0
            chosen = step % len(self.learning)
            for number in range(starts[chosen], starts[chosen + 1]):
                part = self._error(layer, number)
                part.backward()
                loss += float(part.detach())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            done, total = at * self.steps + step + 1, len(self.teacher.layers) * self.steps
            refuse_broken(loss, done, total)
            self.ctx.progress(fraction=done / total, step=done, loss=loss)
            if done % (LOG_STEPS * LOG_STEPS) == 0 or done == total:
                self.ctx.note(f"layer {at + 1}/{len(self.teacher.layers)} error {loss:.5f}")
            # What the layers before learnt is saved; this one is begun again.
            announced = self.ctx.interruption.announced()
            if announced or self.stop.number is not None:
                self.saved.heed(announced=announced)

    def _error(self, layer: Any, number: int) -> Any:
        """Squared error of a layer relative to the square of what is right, as `Batch.weights` weigh positions."""
        batch, wanted = self.batches[number], self.right[number].to(self.memory.device)
        found = self.student.run(layer, self.made[number], batch).to(wanted.dtype)
        relative = (found - wanted).square().sum(-1) / wanted.square().sum(-1)
        return (relative[batch.counted.to(relative.device)] * batch.weights.to(relative.device)).sum()

    def _divergence(self, hidden: Hidden) -> float:
        """Of the probe, with the models' own last norms and output layers."""
        return sum(
            float(
                divergence_from(
                    probabilities_of(self.teacher.logits(self.right[at], self.batches[at])),
                    self.student.logits(hidden[at], self.batches[at]),
                    self.batches[at],
                )
            )
            for at in range(self.probe)
        )


def _steps(rows: CorpusRows, config: Any) -> Iterator[list[Batch]]:
    """Batches of each optimiser step, until the rows come again or are enough."""
    tokens = 0
    for start in range(0, min(len(rows), max(rows.rows // STEP_ROWS, 1) * STEP_ROWS), STEP_ROWS):
        batches = batches_of([rows[at] for at in range(start, start + STEP_ROWS)], config)
        tokens += sum(batch.input_ids.numel() for batch in batches)
        if start and tokens > MOST_TOKENS:
            return
        yield batches
