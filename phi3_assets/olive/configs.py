"""Configurations of Olive's passes, made of a recipe's fields: used by the steps and by the export alike."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.olive.corpus import CorpusOrder

# With shared buffers the cache of keys and values is allocated at search.max_length, so the model's whole context
# length by default costs memory and speed for every short answer (onnxruntime-genai #2239).
MAX_LENGTH_TOKENS = 4096
# Recipe field method, by Olive's name of the pass.
PASSES = {"lora": "LoRA", "dora": "DoRA", "qlora": "QLoRA"}
# Recipe field execution_provider, by ONNX Runtime's name.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def corpus_order(params: Mapping[str, Any]) -> CorpusOrder:
    """The order of rows that a recipe's fields ask for."""
    return CorpusOrder(
        num_train_epochs=params["num_train_epochs"],
        max_steps=params["max_steps"],
        step_rows=params["train_batch_rows"],
        group_by_length=params["group_by_length"],
        data_seed=params["data_seed"],
        whole_rows=params["per_device_train_batch_size"] * params["processes"] if params["processes"] > 1 else 1,
    )


def fine_tuning(
    params: Mapping[str, Any],
    data_config: dict[str, Any] | str,
    checkpoints: Path | None,
    *,
    on_gpu: bool,
    report_to: str = "none",
) -> dict[str, Any]:
    """Configuration of Olive's pass LoRA, DoRA or QLoRA.

    Args:
        params: Recipe fields of the step.
        data_config: Olive data config of the corpus, whose rows come in training order; or its name.
        checkpoints: Where the trainer keeps its checkpoints; Olive resumes from the last one there. None: nowhere, and
            then the rows of eval_share are held out, but not evaluated.
        on_gpu: Whether the model is put on a GPU.
        report_to: Where the trainer sends its numbers, by transformers' name, such as "mlflow".
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
            **({"output_dir": str(checkpoints)} if checkpoints else {}),
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
            # The adapter's numbers are float32 and are multiplied in the base model's type.
            "bf16": params["torch_dtype"] == "bfloat16",
            "use_cpu": not on_gpu,
            "logging_steps": 1,
            # A loss that is not finite must be seen; the default logs zero instead.
            "logging_nan_inf_filter": False,
            # Our callback asks for checkpoints by time.
            "save_strategy": "no",
            "save_total_limit": 2,
            "disable_tqdm": False,
            "report_to": report_to,
        },
    }
    if params["processes"] > 1:
        config["training_args"] |= {
            "ddp_backend": "nccl" if on_gpu else "gloo",
            "ddp_find_unused_parameters": False,
        }
    if params["eval_share"] and checkpoints:
        # A checkpoint with each evaluation, so that the best adapter can be taken up again at the end.
        config["training_args"] |= {
            "eval_strategy": "steps",
            "eval_steps": params["eval_steps"],
            "save_strategy": "steps",
            "save_steps": params["eval_steps"],
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
        }
    if params["method"] == "qlora":
        config |= {name: params[name] for name in ("quant_type", "double_quant", "compute_dtype")}
        # The adapter goes into the base model in full precision afterwards, not into the 4-bit one.
        config["save_quant_config"] = False
        # Olive's default is paged on the GPU; it exists there alone.
        config["training_args"]["optim"] = "paged_adamw_32bit" if on_gpu else "adamw_torch"
    return config


def model_builder(params: Mapping[str, Any], max_length: int) -> dict[str, Any]:
    """Configuration of Olive's pass ModelBuilder.

    Args:
        params: Recipe fields of the step onnx_int4_model.
        max_length: Longest sequence, prompt and answer, in tokens.
    """
    algorithm = params["int4_algorithm"]
    return {
        "precision": "int4",
        "int4_block_size": params["int4_block_size"],
        # After gptq there is nothing left to quantise.
        "int4_algo_config": "default" if algorithm == "gptq" else algorithm,
        "int4_is_symmetric": params["int4_symmetric"],
        "int4_accuracy_level": params["int4_accuracy_level"],
        # top_k 1 beside the builder's do_sample false: Foundry Local samples unless a request says otherwise, and then
        # one token to choose from is greedy all the same.
        "search": {"max_length": max_length, "top_k": 1},
    }
