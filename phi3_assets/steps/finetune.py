"""The step `lora_adapter`: fine-tune the base model on the corpus with one of Olive's passes LoRA, DoRA and QLoRA."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.models import environment
from phi3_assets.models.directory import describe, write_json
from phi3_assets.olive import adapter as adapters
from phi3_assets.olive import corpus
from phi3_assets.olive.checkpoints import drop_unfinished
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
        trainable_parameters, total_parameters, steps, epochs, first_loss, final_loss, tokens_per_s,
        supervised_tokens_per_s, train_seconds, peak_memory_bytes, device, dtype, resumed_from_step, and what
        `adapter_norms` says.

    Raises:
        UserError: No rows, wrong target modules, a loss that is not finite, an inert adapter, or memory is full.
    """
    environment.prepare()
    base = ctx.inputs["base_model"]
    params = ctx.params
    adapters.check_target_modules(base, params["target_modules"])
    order = corpus_order(params)
    train_file = ctx.inputs["formatted_corpus"] / corpus.TRAIN_FILE
    rows = corpus.read_corpus(train_file, order)
    training = Training(
        rows=rows.rows,
        tokens=rows.tokens,
        supervised_tokens=rows.supervised_tokens,
        total_rows=len(rows),
        step_rows=order.step_rows,
        logging_steps=params["logging_steps"],
        progress=ctx.progress,
    )
    ctx.log(f"Training on {rows.rows} rows, {rows.supervised_tokens} supervised of {rows.tokens} tokens")
    checkpoints = ctx.work / "checkpoints"
    if (resumed := drop_unfinished(checkpoints)) is not None:
        ctx.log(f"Resuming from the checkpoint of step {resumed}")
    scratch = ctx.work / "olive"
    with olive_log():
        import torch
        import transformers

        corpus.register()
        on_gpu = torch.cuda.is_available()
        # The adapter's first values are drawn when it is created, before the trainer sets the seed
        # (https://github.com/huggingface/peft/issues/951 and others).
        transformers.set_seed(params["seed"])
        try:
            run_pass(
                training_pass(params["method"], list(params["target_modules"]), watch(training)),
                pass_config(params, corpus.data_config(train_file, order), checkpoints, on_gpu=on_gpu),
                base,
                scratch,
            )
        except (RuntimeError, MemoryError) as error:
            raise adapters.out_of_memory(error) or error from error
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
        "tokens_per_s": training.epochs_per_s * training.tokens,
        "supervised_tokens_per_s": training.epochs_per_s * training.supervised_tokens,
        "train_seconds": training.seconds,
        "peak_memory_bytes": adapters.peak_memory_bytes(),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "dtype": params["torch_dtype"],
        "method": params["method"],
        "resumed_from_step": training.first_step,
        **norms,
    }


def corpus_order(params: Mapping[str, Any]) -> corpus.CorpusOrder:
    """The order of rows that a recipe's fields ask for."""
    return corpus.CorpusOrder(
        num_train_epochs=params["num_train_epochs"],
        max_steps=params["max_steps"],
        step_rows=params["per_device_train_batch_size"] * params["gradient_accumulation_steps"],
        group_by_length=params["group_by_length"],
        data_seed=params["data_seed"],
    )


def pass_config(
    params: Mapping[str, Any], data_config: dict[str, Any], checkpoints: Path, *, on_gpu: bool
) -> dict[str, Any]:
    """Configuration of Olive's pass LoRA, DoRA or QLoRA.

    Args:
        params: Recipe fields of the step.
        data_config: Olive data config of the corpus, whose rows come in training order.
        checkpoints: Where the trainer keeps its checkpoints; Olive resumes from the last one there.
        on_gpu: Whether the model is put on a GPU.
    """
    config: dict[str, Any] = {
        "r": params["lora_r"],
        "alpha": params["lora_alpha"],
        "lora_dropout": params["lora_dropout"],
        "target_modules": list(params["target_modules"]),
        "torch_dtype": params["torch_dtype"],
        "device_map": "current_device" if on_gpu else None,
        "allow_tf32": False,
        "train_data_config": data_config,
        "training_args": {
            "output_dir": str(checkpoints),
            "learning_rate": params["learning_rate"],
            "lr_scheduler_type": params["lr_scheduler_type"],
            "warmup_steps": params["warmup_steps"],
            "per_device_train_batch_size": params["per_device_train_batch_size"],
            "gradient_accumulation_steps": params["gradient_accumulation_steps"],
            "gradient_checkpointing": params["gradient_checkpointing"],
            "weight_decay": params["weight_decay"],
            "adam_beta2": params["adam_beta2"],
            "max_grad_norm": params["max_grad_norm"],
            "seed": params["seed"],
            # The rows come in their order for all epochs (see phi3_assets.olive.corpus): one pass, as they are.
            "num_train_epochs": 1,
            "max_steps": params["max_steps"],
            "train_sampling_strategy": "sequential",
            "remove_unused_columns": False,
            "use_cpu": not on_gpu,
            "logging_steps": 1,
            # A loss that is not finite must be seen; the default logs zero instead.
            "logging_nan_inf_filter": False,
            # The watcher asks for checkpoints by time.
            "save_strategy": "no",
            "save_total_limit": 2,
            "disable_tqdm": False,
        },
    }
    if params["method"] == "qlora":
        config |= {name: params[name] for name in ("quant_type", "double_quant", "compute_dtype")}
        # The adapter goes into the base model in full precision afterwards, not into the 4-bit one.
        config["save_quant_config"] = False
        # Olive's default is paged on the GPU; it exists there alone.
        config["training_args"]["optim"] = "paged_adamw_32bit" if on_gpu else "adamw_torch"
    return config
