"""Follows a training: reports progress, keeps the loss curve, writes checkpoints by the clock, stops on nonsense."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.step import Interruption, ProgressCallback
from phi3_assets.training.checkpoints import StopRequest, seal_checkpoint, wait_for_all

CHECKPOINT_S = 60.0
REPORT_S = 2.0
ASK_S = 0.2
"""How often a training that waits asks whether it was spared."""


@dataclass
class Training:
    """What is known about a training from outside, and what it turned out to be.

    Attributes:
        rows: Rows of the corpus, for the epoch.
        tokens: Tokens of an epoch.
        supervised_tokens: Those with a label.
        total_rows: Rows of the whole training.
        step_rows: Rows of one optimiser step; the last step may have fewer.
        logging_steps: Optimiser steps between two lines of the step's log.
        patience: Evaluations without a better loss on the held-out rows, after which training ends; 0: it never does.
        progress: Takes the numbers while it runs.
        note: Takes a line for the step's log every `logging_steps` steps.
        first_step: Where this process began; above 0 after a restart.
        steps: Optimiser steps in all; fewer than planned if it ended early.
        best_step: After which step the adapter was that is kept.
        evaluations: Loss on the held-out rows, by step.
        seconds: Time this process spent training.
        history: One entry for each optimiser step: step, loss, learning_rate, grad_norm.
    """

    rows: int
    tokens: int
    supervised_tokens: int
    total_rows: int
    step_rows: int
    logging_steps: int
    patience: int
    progress: ProgressCallback
    note: Callable[[str], None]
    first_step: int = 0
    steps: int = 0
    best_step: int = 0
    seconds: float = 0.0
    evaluations: dict[int, float] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)

    def epoch(self, step: int) -> float:
        """Passes over the corpus after `step` steps."""
        return min(step * self.step_rows, self.total_rows) / self.rows

    @property
    def epochs_per_s(self) -> float:
        """Speed of this process."""
        return (self.epoch(self.steps) - self.epoch(self.first_step)) / self.seconds if self.seconds else 0.0

    def curve(self) -> list[dict[str, float | None]]:
        """The loss curve: one point for each optimiser step, with eval_loss where held-out rows were evaluated.

        It is the same whether or not the training was interrupted, and however often it was logged.
        """
        points = []
        for entry in self.history:
            step = int(entry["step"])
            point: dict[str, float | None] = {
                "step": step,
                "epoch": round(self.epoch(step), 4),
                **{name: entry[name] for name in ("loss", "learning_rate", "grad_norm")},
            }
            if self.evaluations:
                point["eval_loss"] = self.evaluations.get(step)
            points.append(point)
        return points


def evaluations_without_gain(losses: Sequence[float]) -> int:
    """Losses that came after the lowest one."""
    return len(losses) - 1 - min(range(len(losses)), key=lambda number: losses[number]) if losses else 0


def _anywhere(flags: list[bool], args: Any) -> list[bool]:
    """Of each, whether any of the processes that train together says so: what follows must be done at the same step."""
    if args.world_size == 1:
        return flags
    import torch

    numbers = torch.tensor(flags, dtype=torch.int32, device=args.device)
    torch.distributed.all_reduce(numbers, torch.distributed.ReduceOp.MAX)
    return [bool(number) for number in numbers.tolist()]


def _evaluations(state: Any) -> dict[int, float]:
    return {int(entry["step"]): float(entry["eval_loss"]) for entry in state.log_history if "eval_loss" in entry}


def training_callback(training: Training, stop: StopRequest, interruption: Interruption, *, apart: bool = False) -> Any:
    """Make the TrainerCallback that fills `training`, and obeys `stop` once a checkpoint is written.

    It expects the trainer to log every step. Checkpoints are taken by time, not by steps, so that they cost little in
    a short run and lose little in a long one; where they fall does not change the result. When the machine is about to
    be taken away, one more is written, and training waits: a process that ended would look like a job that did.

    Args:
        training: What is known of the training.
        stop: A signal that came.
        interruption: Says when the machine is about to be taken away.
        apart: Whether each of the processes that train together has folders of its own.
    """
    from transformers import TrainerCallback

    class TrainingCallback(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.started = self.reported = self.saved = time.monotonic()
            self.ended = self.interrupted = False

        def ends_early(self, state: Any) -> bool:
            return bool(
                training.patience and evaluations_without_gain(list(_evaluations(state).values())) >= training.patience
            )

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            stop.arm()
            training.first_step, training.steps = state.global_step, state.max_steps
            # Killed after it had ended early, with the checkpoint of that step written.
            self.ended = self.ends_early(state)
            if state.best_global_step:
                # The work directory may have another path than when the checkpoint was written.
                state.best_model_checkpoint = str(Path(args.output_dir) / f"checkpoint-{state.best_global_step}")
            self.started = self.reported = self.saved = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if self.ended:
                # The trainer makes one step before it can be stopped; nothing of it is kept.
                control.should_log = control.should_evaluate = control.should_save = False
                control.should_training_stop = True
                return
            due = time.monotonic() - self.saved >= CHECKPOINT_S and state.global_step < state.max_steps
            due, self.interrupted = _anywhere([due or stop.number is not None, interruption.announced()], args)
            if due or self.interrupted:
                control.should_save = True

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seal_checkpoint(args, state.global_step, apart=apart)
            if self.interrupted:
                self.wait_until_spared(args, state)
            self.saved = time.monotonic()
            if stop.number is not None:
                stop.deliver()

        def wait_until_spared(self, args: Any, state: Any) -> None:
            self.interrupted = False
            began = time.monotonic()
            training.note(f"step {state.global_step}: waiting, because this machine, or another's, may be taken away")
            interruption.checkpoint_written()
            while interruption.announced() and stop.number is None:
                time.sleep(ASK_S)
            if stop.number is not None:
                return  # this process ends now, and its peers with it
            wait_for_all(args)
            waited = time.monotonic() - began
            self.started += waited  # not a time that training takes
            training.note(f"step {state.global_step}: going on after {waited:.0f} s")

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
            loss, step = metrics["eval_loss"], state.global_step
            training.note(f"step {step}/{state.max_steps} eval_loss {loss:.4f}")
            training.progress(fraction=step / state.max_steps, step=step, eval_loss=loss)
            if self.ends_early(state):
                control.should_training_stop = True
                training.note(f"No better eval_loss in {training.patience} evaluations: training ends early")

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if "loss" not in logs:
                return  # the summary at the end, or an evaluation
            loss, step = float(logs["loss"]), state.global_step
            if not math.isfinite(loss):
                raise UserError(
                    f"Training broke down: the loss is {loss} at step {step} of {state.max_steps}. Lower learning_rate "
                    "(a tenth) or max_grad_norm, or use torch_dtype float32."
                )
            now = time.monotonic()
            elapsed = now - self.started
            tokens_per_s = (training.epoch(step) - training.epoch(training.first_step)) * training.tokens / elapsed
            rate, norm = float(logs["learning_rate"]), float(logs["grad_norm"])
            if step % training.logging_steps == 0 or step == state.max_steps:
                training.note(
                    f"step {step}/{state.max_steps} epoch {training.epoch(step):.3f} loss {loss:.4f} "
                    f"learning_rate {rate:.3g} grad_norm {norm:.3g} tokens_per_s {tokens_per_s:.0f}"
                )
            elif now - self.reported < REPORT_S:
                return
            self.reported = now
            training.progress(
                fraction=step / state.max_steps,
                step=step,
                steps=state.max_steps,
                epoch=training.epoch(step),
                loss=loss,
                learning_rate=rate,
                grad_norm=norm,
                tokens_per_s=tokens_per_s,
            )

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            training.seconds = time.monotonic() - self.started
            training.history = [
                {name: float(entry[name]) for name in ("step", "loss", "learning_rate", "grad_norm")}
                for entry in state.log_history
                if "loss" in entry
            ]
            training.evaluations = _evaluations(state)
            training.steps = int(training.history[-1]["step"])
            training.best_step = state.best_global_step or training.steps

    return TrainingCallback()
