"""Recovery: learning the scales of a quantised model, with the model that it was made of as the teacher.

The integers that Gptq and Rtn chose stay; so do the bytes of the model and its speed. Scales and norms are learnt so
that the quantised model says what the teacher says, at every position of the corpus: no label is read, so no answer of
the corpus can bend it. It is the end-to-end stage of EfficientQAT (https://arxiv.org/abs/2407.11062) with the
divergence from the teacher as the loss. On a CPU the result is the same bytes for the same number of threads, killed
and resumed or not; with another number sums are taken in another order.
"""

import math
import shutil
import time
from pathlib import Path

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import write_json
from phi3_assets.core.sealing import checksum, seal
from phi3_assets.core.step import StepContext
from phi3_assets.olive.corpus import CorpusOrder, CorpusRows, read_corpus
from phi3_assets.quantising.blocks import learnt, load_student, write_learnt
from phi3_assets.quantising.divergence import batches_of, divergence, mean_divergence
from phi3_assets.quantising.forecast import Memory
from phi3_assets.quantising.measured import RecoveryMetrics
from phi3_assets.training.adapter import out_of_memory
from phi3_assets.training.checkpoints import FOLDER, STATE_FILE, StopRequest, drop_damaged

STEP_ROWS = 8
WARM_UP_STEPS = 10
# Of the relative change of a scale; the largest scale of the default model moves by a tenth in 111 steps.
LEARNING_RATE = 2e-3
# Norms are in all positions' way, and are learnt more slowly than scales.
NORM_LEARNING_RATE = LEARNING_RATE / 5
PROBE_ROWS = 32
"""Rows whose divergence is measured before and after."""
CHECKPOINT_S = 60.0
LOG_STEPS = 10
_STATE = "recovery.pt"
ASK_S = 0.2


def recover(ctx: StepContext, quantised: Path, train_file: Path, target: Path) -> RecoveryMetrics:
    """Write the quantised model to `target` with scales and norms that answer like merged_model.

    Args:
        ctx: Of the step; checkpoints are in its work directory.
        quantised: What Olive's Gptq and Rtn left.
        train_file: The corpus.
        target: An empty directory.

    Raises:
        UserError: More memory needed than there is, or a divergence that is not finite.
        TransientError: Others had the memory.
    """
    steps = ctx.params["int4_recovery_steps"]
    order = CorpusOrder(1.0, steps, step_rows=STEP_ROWS, group_by_length=True, data_seed=0)
    rows = read_corpus(train_file, order, ctx.params["eval_share"])
    stop = StopRequest()
    try:
        return _Recovery(ctx, quantised, rows, steps, stop).run(target)
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, ctx.params) or error from error
    finally:
        stop.disarm()


class _Recovery:
    """One recovery in this process."""

    def __init__(self, ctx: StepContext, quantised: Path, rows: CorpusRows, steps: int, stop: StopRequest) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.ctx, self.quantised, self.rows, self.steps, self.stop = ctx, quantised, rows, steps, stop
        self.checkpoints = ctx.work / FOLDER
        self.of = {path.name: checksum(path)[1] for path in sorted(quantised.glob("*.safetensors"))}
        on_gpu = torch.cuda.is_available()
        self.memory = Memory(ctx.inputs["merged_model"], quantised, rows, STEP_ROWS, on_gpu=on_gpu)
        checkpointing = self.memory.choose_or_refuse(ctx.log)
        device = torch.device("cuda" if on_gpu else "cpu")
        teacher = AutoModelForCausalLM.from_pretrained(
            ctx.inputs["merged_model"], dtype="auto" if on_gpu else torch.float32
        )
        self.teacher = teacher.eval().requires_grad_(False).to(device)
        self.student = load_student(quantised, teacher.dtype).to(device)
        if checkpointing:
            self.student.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        # transformers recomputes activations in training mode alone; Phi-3 has no dropout that this would turn on.
        self.student.train(checkpointing)
        self.names, self.tensors = map(list, zip(*learnt(self.student), strict=True))
        groups = [
            {"params": [one for name, one in learnt(self.student) if name.endswith(".change") == scales], "peak": rate}
            for scales, rate in ((True, LEARNING_RATE), (False, NORM_LEARNING_RATE))
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0)
        self.before = 0.0

    def run(self, target: Path) -> RecoveryMetrics:
        first = self._resume()
        self.memory.forget_peak()
        probe = [self.rows[at] for at in range(min(PROBE_ROWS, len(self.rows)))]
        if first == 0:
            self.before = mean_divergence(self.teacher, self.student, probe)
        self.stop.arm()
        started = saved = time.monotonic()
        for step in range(first, self.steps):
            loss = self._step(step)
            done = step + 1
            if not math.isfinite(loss):
                raise UserError(
                    f"Recovery broke down: the divergence is {loss} at step {done} of {self.steps}. Set "
                    "int4_recovery_steps: 0 to take the quantised model as it is."
                )
            self.ctx.progress(fraction=done / self.steps, step=done, loss=loss)
            if done % LOG_STEPS == 0 or done == self.steps:
                self.ctx.note(f"step {done}/{self.steps} divergence {loss:.4f}")
            announced = self.ctx.interruption.announced()
            if self.stop.number is not None or announced or time.monotonic() - saved >= CHECKPOINT_S:
                self._save(done)
                self._heed(announced=announced)
                saved = time.monotonic()
        seconds = time.monotonic() - started
        after = mean_divergence(self.teacher, self.student, probe)
        self.stop.deliver()
        write_learnt(self.student, self.quantised, target)
        changes = [tensor for name, tensor in learnt(self.student) if name.endswith(".change")]
        recovered = RecoveryMetrics(
            recovery_steps=self.steps,
            recovery_divergence_before=self.before,
            recovery_divergence_after=after,
            recovery_largest_scale_change=max(float(change.detach().abs().max()) for change in changes),
            recovery_learnt_numbers=sum(tensor.numel() for tensor in self.tensors),
            recovery_seconds=seconds,
            recovery_peak_memory_bytes=self.memory.peak(),
            recovery_estimated_memory_bytes=self.memory.needed,
            recovery_resumed_from_step=first,
        )
        self.ctx.log(
            f"Recovery: the divergence from merged_model went from {self.before:.4f} to {after:.4f} nats in "
            f"{self.steps} steps; the largest change of a scale is {recovered.recovery_largest_scale_change:.1%}"
        )
        return recovered

    def _step(self, step: int) -> float:
        """One optimiser step; its loss in nats."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step, self.steps)
        loss = 0.0
        rows = [self.rows[at] for at in range(step * STEP_ROWS, (step + 1) * STEP_ROWS)]
        for batch in batches_of(rows, self.student.config.hidden_size):
            part = divergence(self.teacher, self.student, batch)
            part.backward()
            loss += float(part.detach())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _resume(self) -> int:
        """Take up the last whole checkpoint of these integers; steps done."""
        import torch

        step = drop_damaged(self.checkpoints, self.ctx.log)
        if step is None:
            return 0
        folder = self.checkpoints / f"checkpoint-{step}"
        state = torch.load(folder / _STATE, map_location=self.student.device, weights_only=True)
        if state["of"] != self.of:
            # Another machine's Gptq may have rounded otherwise.
            self.ctx.log(f"The checkpoint of step {step} is not resumed from: it is of other integers")
            shutil.rmtree(self.checkpoints)
            return 0
        with torch.no_grad():
            for name, tensor in zip(self.names, self.tensors, strict=True):
                tensor.copy_(state["learnt"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.before = state["before"]
        self.ctx.log(f"Resuming the recovery from the checkpoint of step {step}")
        return step

    def _save(self, step: int) -> None:
        """Write a checkpoint in the form of a training's, and keep no older one."""
        import torch

        folder = self.checkpoints / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "of": self.of,
            "before": self.before,
            "learnt": dict(zip(self.names, (tensor.detach() for tensor in self.tensors), strict=True)),
            "optimizer": self.optimizer.state_dict(),
        }
        torch.save(state, folder / _STATE)
        write_json(folder / STATE_FILE, {"best_global_step": None, "global_step": step})
        seal(folder, folder.name)
        for other in self.checkpoints.iterdir():
            if other != folder:
                shutil.rmtree(other)

    def _heed(self, *, announced: bool) -> None:
        """Once a checkpoint is written: wait while the machine may be taken away, and end where a signal said so."""
        if announced:
            self.ctx.interruption.checkpoint_written()
            while self.ctx.interruption.announced() and self.stop.number is None:
                time.sleep(ASK_S)
        if self.stop.number is not None:
            self.stop.deliver()


def rate(step: int, steps: int) -> float:
    """Learning rate of a step, counted from 0, as a share of its peak: warm-up, then a cosine to 0."""
    warm_up = min(WARM_UP_STEPS, steps // 4)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
