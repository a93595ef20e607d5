"""The step `lora_adapter`: fine-tune the base model on the corpus with one of Olive's passes LoRA, DoRA and QLoRA."""

from typing import Any

from phi3_assets.core.files import write_json
from phi3_assets.core.step import StepContext
from phi3_assets.models.directory import describe
from phi3_assets.olive.corpus import TRAIN_FILE
from phi3_assets.steps.adopt import adopt_adapter, inert_adapter
from phi3_assets.training import adapter as adapters
from phi3_assets.training.checkpoints import drop_damaged
from phi3_assets.training.fit import Callbacks, Job, fit
from phi3_assets.training.measured import TrainingMetrics
from phi3_assets.training.together import fit_together

HISTORY_FILE = "history.json"
PLOT_FILE = "loss.png"


def train_lora(ctx: StepContext) -> dict[str, Any]:
    """Train an adapter; leave it with its loss curve in `ctx.output`.

    Checkpoints go to `ctx.work`. If the process dies, the next run with the same `ctx.work` continues from the last
    one; on CPU its result is bit-equal to that of an uninterrupted run. An adapter that the user brings is taken
    instead, and with method none one that changes nothing; see `phi3_assets.steps.adopt`.

    Returns:
        `TrainingMetrics` as JSON; `AdapterMetrics` where nothing was trained.

    Raises:
        UserError: No rows, wrong target modules, more memory or disk needed than there is, a loss that is not finite,
            or an inert adapter.
    """
    if "adapter_directory" in ctx.inputs:
        return adopt_adapter(ctx)
    if ctx.params["method"] == "none":
        return inert_adapter(ctx)
    base, params = ctx.inputs["base_model"], {**ctx.params, **ctx.settings}
    adapters.check_target_modules(base, params["target_modules"])
    job = Job(
        base_model=base,
        train_file=ctx.inputs["formatted_corpus"] / TRAIN_FILE,
        params=params,
        checkpoints=ctx.work / "checkpoints",
        scratch=ctx.work / "olive",
    )
    if (resumed := drop_damaged(job.checkpoints, ctx.log)) is not None:
        ctx.log(f"Resuming from the checkpoint of step {resumed}")
    callbacks = Callbacks(ctx.log, ctx.note, ctx.progress)
    fitted = fit(job, callbacks) if params["processes"] == 1 else fit_together(job, callbacks, params["processes"])
    training = fitted.training
    adapters.publish_adapter(job.scratch / "adapter", ctx.output)
    norms = adapters.adapter_norms(ctx.output)
    curve = training.curve()
    write_json(ctx.output / HISTORY_FILE, curve)
    adapters.plot_curve(curve, ctx.output / PLOT_FILE)
    trainable = adapters.count_adapter_parameters(ctx.output)
    held_out = fitted.eval_rows > 0
    return TrainingMetrics(
        method=params["method"],
        trainable_parameters=trainable,
        total_parameters=describe(base).parameters + trainable,
        steps=training.steps,
        epochs=round(training.epoch(training.steps), 3),
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
