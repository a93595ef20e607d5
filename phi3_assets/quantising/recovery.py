"""Recovery: learning the scales of a quantised model, with the model that it was made of as the teacher.

The integers that Gptq and Rtn chose stay; so do the bytes of the model and its speed. Scales and norms are learnt so
that the quantised model says what the teacher says, at every position of the corpus: no label is read, so no answer of
the corpus can bend it. End to end, where both models fit into memory, the loss is the divergence of the predictions;
where they do not, one decoder layer after the other learns to give the teacher's hidden states (`blockwise`). They are
the two stages of EfficientQAT (https://arxiv.org/abs/2407.11062). On a CPU the result is the same bytes for the same
number of threads, killed and resumed or not; with another number sums are taken in another order.
"""

import time
from pathlib import Path
from typing import Any

from phi3_assets.core.step import StepContext
from phi3_assets.olive.corpus import CorpusOrder, CorpusRows, read_corpus
from phi3_assets.quantising.blocks import learnt, learnt_tensors, load_student, write_learnt
from phi3_assets.quantising.blockwise import recover_blockwise
from phi3_assets.quantising.divergence import batches_of, divergence, mean_divergence
from phi3_assets.quantising.forecast import Memory, Way
from phi3_assets.quantising.learning import LOG_STEPS, PROBE_ROWS, STEP_ROWS, optimizer_of, refuse_broken, set_rate
from phi3_assets.quantising.measured import RecoveryMetrics
from phi3_assets.quantising.saved import Saved
from phi3_assets.quantising.taught import Taught
from phi3_assets.training.adapter import out_of_memory
from phi3_assets.training.checkpoints import StopRequest

CHECKPOINT_S = 60.0


def recover(
    ctx: StepContext, quantised: Path, train_file: Path, target: Path, replay_file: Path | None = None
) -> RecoveryMetrics:
    """Write the quantised model to `target` with scales and norms that answer like merged_model.

    Args:
        ctx: Of the step; checkpoints are in its work directory.
        quantised: What Olive's Gptq and Rtn left.
        train_file: The corpus.
        target: An empty directory.
        replay_file: More rows to learn from; see `read_corpus`.

    Raises:
        UserError: More memory needed than there is, or a loss that is not finite.
        TransientError: Others had the memory.
    """
    import torch
    import transformers  # noqa: F401  (what the libraries hold counts in the forecast)

    steps = ctx.params["int4_recovery_steps"]
    order = CorpusOrder(1.0, steps, step_rows=STEP_ROWS, group_by_length=True, data_seed=0)
    rows = read_corpus(train_file, order, ctx.params["eval_share"], replay_file)
    memory = Memory(ctx.inputs["merged_model"], quantised, rows, STEP_ROWS, on_gpu=torch.cuda.is_available())
    way = memory.choose_or_refuse(ctx.log)
    stop = StopRequest()
    saved = Saved(ctx, quantised, "blockwise" if way is Way.BLOCKWISE else "end to end", stop)
    try:
        if way is Way.BLOCKWISE:
            return recover_blockwise(ctx, quantised, rows, target, memory, saved, stop)
        recovery = _EndToEnd(ctx, quantised, rows, memory, saved, stop, recomputing=way is Way.RECOMPUTING)
        return recovery.run(target)
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, ctx.params) or error from error
    finally:
        stop.disarm()


class _EndToEnd:
    """One recovery of a model that is whole in memory, beside its teacher."""

    def __init__(
        self,
        ctx: StepContext,
        quantised: Path,
        rows: CorpusRows,
        memory: Memory,
        saved: Saved,
        stop: StopRequest,
        *,
        recomputing: bool,
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.ctx, self.quantised, self.rows = ctx, quantised, rows
        self.memory, self.saved, self.stop = memory, saved, stop
        self.steps = ctx.params["int4_recovery_steps"]
        teacher = AutoModelForCausalLM.from_pretrained(
            ctx.inputs["merged_model"], dtype="auto" if memory.on_gpu else torch.float32
        )
        self.teacher = teacher.eval().requires_grad_(False).to(memory.device)
        self.student = load_student(quantised, teacher.dtype).to(memory.device)
        if recomputing:
            self.student.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        # transformers recomputes activations in training mode alone; Phi-3 has no dropout that this would turn on.
        self.student.train(recomputing)
        self.optimizer = optimizer_of(self.student)
        self.halved = ctx.params["torch_dtype"] == "bfloat16"
        self.before = 0.0

    def run(self, target: Path) -> RecoveryMetrics:
        first = self._resume()
        self.memory.forget_peak()
        probe = [self.rows[at] for at in range(min(PROBE_ROWS, len(self.rows)))]
        if first == 0:
            self.before = mean_divergence(self.teacher, self.student, probe)
        started = time.monotonic()
        taught = Taught(
            self.teacher, self.rows, self.ctx.log, progress=lambda fraction: self.ctx.progress(fraction=fraction)
        )
        self.stop.arm()
        saved = time.monotonic()
        for step in range(first, self.steps):
            loss = self._step(step, taught)
            done = step + 1
            refuse_broken(loss, done, self.steps)
            fraction = taught.share + (1 - taught.share) * done / self.steps
            self.ctx.progress(fraction=fraction, step=done, loss=loss)
            if done % LOG_STEPS == 0 or done == self.steps:
                self.ctx.note(f"step {done}/{self.steps} divergence {loss:.4f}")
            announced = self.ctx.interruption.announced()
            if self.stop.number is not None or announced or time.monotonic() - saved >= CHECKPOINT_S:
                self._save(done)
                self.saved.heed(announced=announced)
                saved = time.monotonic()
        seconds = time.monotonic() - started
        after = mean_divergence(self.teacher, self.student, probe)
        self.stop.deliver()
        write_learnt(learnt_tensors(self.student), self.quantised, target)
        changes = [tensor for name, tensor in learnt(self.student) if name.endswith(".change")]
        recovered = RecoveryMetrics(
            recovery_way="end to end",
            recovery_steps=self.steps,
            recovery_divergence_before=self.before,
            recovery_divergence_after=after,
            recovery_largest_scale_change=max(float(change.detach().abs().max()) for change in changes),
            recovery_learnt_numbers=sum(tensor.numel() for _, tensor in learnt(self.student)),
            recovery_seconds=seconds,
            recovery_peak_memory_bytes=self.memory.peak(),
            recovery_estimated_memory_bytes=self.memory.needed,
            recovery_resumed_from_step=first,
        )
        self.ctx.log(recovered.sentence())
        return recovered

    def _step(self, step: int, taught: Taught) -> float:
        """One optimiser step; its loss in nats."""
        set_rate(self.optimizer, step, self.steps)
        loss = 0.0
        places = range(step * STEP_ROWS, (step + 1) * STEP_ROWS)
        for batch in batches_of([self.rows[at] for at in places], self.student.config):
            count = len(batch.spans)
            hidden, places = taught.of(batch, places[:count]), places[count:]
            part = divergence(self.teacher, self.student, batch, hidden, halved=self.halved)
            part.backward()
            loss += float(part.detach())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _resume(self) -> int:
        """Take up the last whole checkpoint of these integers; steps done."""
        import torch

        step, state = self.saved.load(self.student.device)
        if step:
            with torch.no_grad():
                for name, tensor in learnt(self.student):
                    tensor.copy_(state["learnt"][name])
            self.optimizer.load_state_dict(state["optimizer"])
            self.before = state["before"]
        return step

    def _save(self, step: int) -> None:
        state: dict[str, Any] = {name: tensor.detach() for name, tensor in learnt(self.student)}
        self.saved.save(step, before=self.before, learnt=state, optimizer=self.optimizer.state_dict())
