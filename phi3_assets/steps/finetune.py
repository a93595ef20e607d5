"""The step `lora_adapter`: fine-tune the base model on the corpus with one of Olive's passes LoRA, DoRA and QLoRA."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_assets.core.files import write_json
from phi3_assets.core.step import StepContext
from phi3_assets.models import environment
from phi3_assets.models.directory import describe
from phi3_assets.models.four_bit import FourBit
from phi3_assets.olive.configs import corpus_order
from phi3_assets.olive.corpus import TRAIN_FILE, read_corpus
from phi3_assets.steps.adopt import adopt_adapter, inert_adapter
from phi3_assets.training import adapter as adapters
from phi3_assets.training.attention import FLASH, chosen
from phi3_assets.training.checkpoints import FOLDER, drop_damaged
from phi3_assets.training.fit import Callbacks, Fitted, Job, fit
from phi3_assets.training.group import Group, joined
from phi3_assets.training.measured import TrainingMetrics
from phi3_assets.training.ranks import cut_batch, given_rank, stand_alone
from phi3_assets.training.replay import REPLAY_FILE, count_texts, texts_for, write_texts
from phi3_assets.training.together import fit_together

HISTORY_FILE = "history.json"
PLOT_FILE = "loss.png"
SCRATCH = "olive"
"""Folder of the work directory that Olive writes to."""


def train_lora(ctx: StepContext) -> dict[str, Any]:
    """Train an adapter; leave it with its loss curve in `ctx.output`.

    Checkpoints go to `ctx.work`. If the process dies, the next run with the same `ctx.work` continues from the last
    one; on CPU its result is bit-equal to that of an uninterrupted run. An adapter that the user brings is taken
    instead, and with method none one that changes nothing; see `phi3_assets.steps.adopt`.

    Where the environment says that this process is one of several (see `phi3_assets.training.ranks`), it trains with
    them. Each has an output and a work directory of its own; the first one alone keeps checkpoints and publishes.

    Returns:
        `TrainingMetrics` as JSON; `AdapterMetrics` where nothing was trained; empty for all but the first of several.

    Raises:
        UserError: No rows, wrong target modules, more memory or disk needed than there is, a loss that is not finite,
            an inert adapter, or a step's rows that the processes cannot share.
        TransientError: Others had the memory, or another of several processes was lost.
    """
    if "adapter_directory" in ctx.inputs:
        return adopt_adapter(ctx)
    if ctx.params["method"] == "none":
        return inert_adapter(ctx)
    params = {**ctx.params, **ctx.settings}
    rank = given_rank(os.environ)
    if rank is None:
        stand_alone(os.environ)
        return _publish(ctx, params, _fit_alone(ctx, _job(ctx, params)))
    with joined(rank) as group:
        params = cut_batch(params, rank.of)
        fitted = _fit_as_rank(ctx, _job(ctx, params), group)
        return _publish(ctx, params, fitted) if rank.leads else {}


def _job(ctx: StepContext, params: dict[str, Any]) -> Job:
    if params["attn_implementation"] == FLASH:  # before anything takes long
        environment.prepare()
        import torch

        chosen(params, on_gpu=torch.cuda.is_available())
    base = ctx.inputs["base_model"]
    adapters.check_target_modules(base, params["target_modules"])
    job = Job(
        base_model=base,
        train_file=ctx.inputs["formatted_corpus"] / TRAIN_FILE,
        params=params,
        checkpoints=ctx.work / FOLDER,
        scratch=ctx.work / SCRATCH,
    )
    return replace(job, replay_file=_replay(ctx, job)) if params["replay_share"] else job


def _replay(ctx: StepContext, job: Job) -> Path:
    """Have the base model write what is trained on beside the corpus."""
    environment.prepare()
    params = job.params
    rows = read_corpus(job.train_file, corpus_order(params), params["eval_share"]).rows
    count = texts_for(rows, params["replay_share"])
    ctx.log(
        f"The base model writes {count} texts, which are learnt along so that it does not forget its language; steps "
        "of these alone will be peaks of the loss"
    )
    target = ctx.work / REPLAY_FILE
    try:
        write_texts(job.base_model, count, params["seed"], params["torch_dtype"], target)
    except (RuntimeError, MemoryError) as error:
        raise adapters.out_of_memory(error, params) or error from error
    return target


def _fit_alone(ctx: StepContext, job: Job) -> Fitted:
    """Train in this process, or in several that it starts."""
    _tell_resumed(ctx, drop_damaged(job.checkpoints, ctx.log))
    processes = job.params["processes"]
    return fit(job, _callbacks(ctx)) if processes == 1 else fit_together(job, _callbacks(ctx), processes)


def _fit_as_rank(ctx: StepContext, job: Job, group: Group) -> Fitted:
    """Train as one of several processes that somebody else started."""
    ctx.log(
        f"Training as {group.rank}: {job.params['per_device_train_batch_size']} rows at once in each, "
        f"{job.params['gradient_accumulation_steps']} times for a step"
    )
    step = drop_damaged(job.checkpoints, ctx.log) if group.rank.leads else None
    _tell_resumed(ctx, group.share_checkpoint(job.checkpoints, step))
    job = replace(job, processes_here=group.processes_here, apart=True)
    return fit(job, _callbacks(ctx), leads=group.rank.leads)


def _callbacks(ctx: StepContext) -> Callbacks:
    return Callbacks(ctx.log, ctx.note, ctx.progress, ctx.interruption)


def _tell_resumed(ctx: StepContext, step: int | None) -> None:
    if step is not None:
        ctx.log(f"Resuming from the checkpoint of step {step}")


def _publish(ctx: StepContext, params: dict[str, Any], fitted: Fitted) -> dict[str, Any]:
    """Leave the adapter and its curve in `ctx.output`, and say what was measured."""
    training = fitted.training
    adapters.publish_adapter(ctx.work / SCRATCH / "adapter", ctx.output)
    if params["method"] == "qlora":
        FourBit.of(params).write(ctx.output)
    replayed = ctx.work / REPLAY_FILE if params["replay_share"] else None
    if replayed is not None:
        shutil.copyfile(replayed, ctx.output / REPLAY_FILE)
    norms = adapters.adapter_norms(ctx.output)
    curve = training.curve()
    write_json(ctx.output / HISTORY_FILE, curve)
    adapters.plot_curve(curve, ctx.output / PLOT_FILE)
    trainable = adapters.count_adapter_parameters(ctx.output)
    held_out = fitted.eval_rows > 0
    return TrainingMetrics(
        method=params["method"],
        trainable_parameters=trainable,
        total_parameters=describe(ctx.inputs["base_model"]).parameters + trainable,
        steps=training.steps,
        epochs=round(training.epoch(training.steps), 3),
        replay_texts=count_texts(replayed) if replayed is not None else 0,
        first_loss=training.history[0]["loss"],
        final_loss=training.history[-1]["loss"],
        eval_rows=fitted.eval_rows if held_out else None,
        best_step=training.best_step if held_out else None,
        eval_loss=training.evaluations[training.best_step] if held_out else None,
        tokens_per_s=training.epochs_per_s * training.tokens,
        supervised_tokens_per_s=training.epochs_per_s * training.supervised_tokens,
        train_seconds=training.seconds,
        estimated_seconds=fitted.estimated_seconds,
        peak_memory_bytes=fitted.peak_memory_bytes,
        estimated_memory_bytes=fitted.estimate.memory,
        estimated_disk_bytes=fitted.estimate.disk,
        device=fitted.device,
        dtype=params["torch_dtype"],
        resumed_from_step=training.first_step,
        **norms,
    ).to_dict()
