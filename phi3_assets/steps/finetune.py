"""The step `lora_adapter`: fine-tune the base model on the corpus with one of Olive's passes LoRA, DoRA and QLoRA."""

from typing import Any

from phi3_assets.models import environment
from phi3_assets.models.directory import describe, write_json
from phi3_assets.olive import adapter as adapters
from phi3_assets.olive import configs, corpus
from phi3_assets.olive.checkpoints import StopRequest, drop_unfinished
from phi3_assets.olive.forecast import Forecast, peak_bytes
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets.olive.training import training_pass
from phi3_assets.olive.watcher import Training, watch
from phi3_assets.step import StepContext

HISTORY_FILE = "history.json"
PLOT_FILE = "loss.png"


def train_lora(ctx: StepContext) -> dict[str, Any]:
    """Train an adapter; leave it with its loss curve in `ctx.output`.

    Checkpoints go to `ctx.work`. If the process dies, the next run with the same `ctx.work` continues from the last
    one; on CPU its result is bit-equal to that of an uninterrupted run.

    Returns:
        trainable_parameters, total_parameters, steps, epochs, first_loss, final_loss, with eval_share
        also eval_rows, best_step and eval_loss; tokens_per_s,
        supervised_tokens_per_s, train_seconds, estimated_seconds, peak_memory_bytes, estimated_memory_bytes,
        estimated_disk_bytes, device, dtype, resumed_from_step, and what `adapter_norms` says.

    Raises:
        UserError: No rows, wrong target modules, more memory or disk needed than there is, a loss that is not finite,
            or an inert adapter.
    """
    environment.prepare()
    base = ctx.inputs["base_model"]
    params = ctx.params
    adapters.check_target_modules(base, params["target_modules"])
    order = configs.corpus_order(params)
    train_file = ctx.inputs["formatted_corpus"] / corpus.TRAIN_FILE
    eval_share = params["eval_share"]
    rows = corpus.read_corpus(train_file, order, eval_share)
    eval_rows = corpus.read_eval_rows(train_file, eval_share) if eval_share else None
    data = corpus.data_config(train_file, order, eval_share)
    training = Training(
        rows=rows.rows,
        tokens=rows.tokens,
        supervised_tokens=rows.supervised_tokens,
        total_rows=len(rows),
        step_rows=order.step_rows,
        logging_steps=params["logging_steps"],
        patience=params["early_stopping_patience"],
        progress=ctx.progress,
        note=ctx.note,
    )
    ctx.log(f"Training on {rows.rows} rows, {rows.supervised_tokens} supervised of {rows.tokens} tokens")
    if eval_rows:
        ctx.log(f"{eval_rows.rows} more are not learnt, but looked at every {params['eval_steps']} steps")
    checkpoints = ctx.work / "checkpoints"
    if (resumed := drop_unfinished(checkpoints)) is not None:
        ctx.log(f"Resuming from the checkpoint of step {resumed}")
    scratch = ctx.work / "olive"
    stop = StopRequest()
    with olive_log():
        import torch
        import transformers
        from olive.passes.pytorch import lora  # noqa: F401  (loads what trains, which the forecast counts)

        corpus.register()
        on_gpu = torch.cuda.is_available()
        forecast = Forecast(base, params, rows, ctx.log, on_gpu=on_gpu)
        forecast.refuse_if_too_large(ctx.work)
        # The adapter's first values are drawn when it is created, before the trainer sets the seed
        # (https://github.com/huggingface/peft/issues/951 and others).
        transformers.set_seed(params["seed"])
        try:
            run_pass(
                training_pass(
                    params["method"],
                    list(params["target_modules"]),
                    watch(training, stop),
                    forecast.rehearse,
                    eval_rows,
                ),
                configs.fine_tuning(params, data, checkpoints, on_gpu=on_gpu),
                base,
                scratch,
            )
        except (RuntimeError, MemoryError) as error:
            raise adapters.out_of_memory(error, params) or error from error
        finally:
            stop.disarm()
    adapters.publish_adapter(scratch / "adapter", ctx.output)
    norms = adapters.adapter_norms(ctx.output)
    curve = training.curve()
    write_json(ctx.output / HISTORY_FILE, curve)
    adapters.plot_curve(curve, ctx.output / PLOT_FILE)
    trainable = adapters.count_adapter_parameters(ctx.output)
    return {
        "trainable_parameters": trainable,
        "total_parameters": describe(base)["parameters"] + trainable,
        "steps": training.steps,
        "epochs": round(training.epoch(training.steps), 3),
        "first_loss": training.history[0]["loss"],
        "final_loss": curve[-1]["loss"],
        **({"eval_rows": eval_rows.rows, "best_step": training.best_step} if eval_rows else {}),
        **({"eval_loss": training.evaluations[training.best_step]} if eval_rows else {}),
        "tokens_per_s": training.epochs_per_s * training.tokens,
        "supervised_tokens_per_s": training.epochs_per_s * training.supervised_tokens,
        "train_seconds": training.seconds,
        "estimated_seconds": forecast.seconds,
        "peak_memory_bytes": peak_bytes(on_gpu=on_gpu),
        "estimated_memory_bytes": forecast.estimate.memory,
        "estimated_disk_bytes": forecast.estimate.disk,
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "dtype": params["torch_dtype"],
        "method": params["method"],
        "resumed_from_step": training.first_step,
        **norms,
    }
