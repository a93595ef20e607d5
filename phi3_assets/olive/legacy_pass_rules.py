"""What each key of the passes that are steps became: part of the table of `legacy_rules`."""

from typing import Any

from phi3_assets.olive.legacy_passes import FINE_TUNING, METHODS
from phi3_assets.olive.rule import NotTaken, Rule, dropped, empty, kept, renamed, replaced

_HOST = replaced("PHI3_EXECUTION of the asset, such as PHI3_EXECUTION_LORA_ADAPTER")
TEST_SET = replaced("the step eval_report scores all variants on the held-out test set after training")
_EVALUATION = replaced("with eval_share the loss on its rows is computed every eval_steps steps and at the end")
_CHECKPOINTS = dropped("checkpoints are taken by time and belong to the step's identity")
NO_CODE = dropped("code of a configuration is never run")
REUSE = dropped("what is unchanged is reused, what is changed is made anew")
HOME = replaced("artefacts lie in PHI3_HOME by identity")
_DEVICES = dropped("one device, or one for each of the recipe's processes")
# Of every pass.
_SHARED = {
    "host": _HOST,
    "host.**": _HOST,
    "evaluator": TEST_SET,
    "evaluator.**": TEST_SET,
    "disable_search": dropped("nothing is searched"),
    "output_name": HOME,
    "clean_run_cache": REUSE,
    "accelerator": _DEVICES,
    "host_device": _DEVICES,
    "user_script": NO_CODE,
    "script_dir": NO_CODE,
}


def _method(value: Any) -> dict[str, Any]:
    kind = str(value).lower()
    if kind not in METHODS:
        raise NotTaken(
            "refused", f"{value} trains another kind of adapter than a recipe does; set method: lora, dora or qlora"
        )
    return {"method": kind}


def _share(size: Any) -> dict[str, Any]:
    if isinstance(size, int | float) and not isinstance(size, bool) and size >= 1:
        raise NotTaken("dropped", f"{size:g} rows; a recipe holds out a share of them: set eval_share, such as 0.1")
    return {"eval_share": size}


def _torch_dtype(value: Any) -> dict[str, Any]:
    if value == "float16":
        # Olive keeps float32 weights then, and computes in float16 beside them.
        return {"torch_dtype": "float32"}
    if value == "auto":
        raise NotTaken("dropped", "auto: bfloat16, as Olive's default")
    return {"torch_dtype": value}


def _compute_dtype(value: Any) -> dict[str, Any]:
    return {"compute_dtype": "bfloat16" if value == "float16" else value}


def _target_modules(value: Any) -> dict[str, Any]:
    if value == "all-linear":
        return {"target_modules": list(BIG_LAYERS)}
    return {"target_modules": [value] if isinstance(value, str) and value.isidentifier() else value}


def _four_bits(value: Any) -> dict[str, Any]:
    if value != 4:
        raise NotTaken("refused", f"{value} bits; the step onnx_int4_model makes 4-bit weights")
    return {}


def _precision(value: Any) -> dict[str, Any]:
    if value not in ("int4", "uint4"):
        raise NotTaken("dropped", f"{value}: the step onnx_int4_model always makes int4")
    return {}


def _algorithm(value: Any) -> dict[str, Any]:
    return {"int4_algorithm": "default" if value == "rtn" else value}


def _accuracy_level(value: Any) -> dict[str, Any]:
    if value == 0:
        raise NotTaken("dropped", "0: no level is asked for, so the recipe's default holds")
    return {"int4_accuracy_level": value}


# Phi-3's; Olive's QLoRA adapts every linear layer.
BIG_LAYERS = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")

_TRAINING_SAME_NAME = (
    *("seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "num_train_epochs", "max_steps"),
    *("logging_steps", "group_by_length", "adam_beta2", "max_grad_norm", "eval_steps"),
)
# The trainer's other arguments, of transformers 4.30 to 5.23: known, and without a field.
_TRAINING_OTHERS = (
    "accelerator_config activation_checkpointing activation_checkpointing_kwargs adafactor adam_beta1 adam_epsilon "
    "auto_find_batch_size average_tokens_across_devices batch_eval_metrics dataloader_drop_last dataloader_in_order "
    "dataloader_multiprocessing_context dataloader_num_workers dataloader_persistent_workers dataloader_pin_memory "
    "dataloader_prefetch_factor ddp_backend ddp_broadcast_buffers ddp_bucket_cap_mb ddp_find_unused_parameters "
    "ddp_static_graph ddp_timeout debug deepspeed disable_tqdm dispatch_batches do_eval do_predict do_train "
    "enable_jit_checkpoint eval_accumulation_steps eval_delay eval_do_concat_batches eval_on_start "
    "eval_use_gather_object "
    "fp16_backend fp16_full_eval fp16_opt_level bf16_full_eval fsdp fsdp_config fsdp_min_num_params "
    "fsdp_transformer_layer_cls_to_wrap full_determinism gradient_checkpointing_kwargs half_precision_backend "
    "hub_always_push hub_model_id hub_private_repo hub_revision hub_strategy hub_token ignore_data_skip "
    "include_for_metrics include_inputs_for_metrics include_num_input_tokens_seen include_tokens_per_second "
    "jit_mode_eval label_names label_smoothing_factor length_column_name liger_kernel_config local_rank log_level "
    "log_level_replica log_on_each_node logging_dir logging_first_step logging_nan_inf_filter logging_strategy "
    "lr_scheduler_kwargs mp_parameters neftune_noise_alpha no_cuda optim_args optim_target_modules parallelism_config "
    "past_index prediction_loss_only project push_to_hub push_to_hub_model_id push_to_hub_organization "
    "push_to_hub_token ray_scope remove_unused_columns restore_callback_states_from_checkpoint resume_from_checkpoint "
    "run_name save_on_each_node save_only_model save_safetensors save_total_limit skip_memory_metrics split_batches "
    "tf32 "
    "torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps torchdynamo tpu_metrics_debug "
    "tpu_num_cores trackio_bucket_id trackio_space_id trackio_static_space_id use_cache use_cpu use_ipex "
    "use_legacy_prediction_loop use_liger_kernel use_mps_device xpu_backend "
)

_TRAINING_ARGS: dict[str, Rule] = {
    **{name: dropped("an argument of the trainer that a recipe has no field for") for name in _TRAINING_OTHERS.split()},
    **{name: kept(name) for name in _TRAINING_SAME_NAME},
    "per_device_eval_batch_size": dropped("evaluation sizes its batches itself"),
    "evaluation_strategy": _EVALUATION,
    "eval_strategy": _EVALUATION,
    "load_best_model_at_end": replaced("with eval_share the best adapter is always the one kept"),
    "metric_for_best_model": replaced("the loss on the rows of eval_share decides"),
    "greater_is_better": replaced("the loss on the rows of eval_share decides; less is better"),
    "train_sampling_strategy": replaced(
        "recipe field group_by_length", lambda value: {"group_by_length": value == "group_by_length"}
    ),
    "warmup_ratio": dropped("gone from transformers 5.15; set warmup_steps"),
    "output_dir": HOME,
    "overwrite_output_dir": HOME,
    "report_to": dropped("progress is reported to Dagster"),
    "optim": dropped("AdamW; for QLoRA on a GPU its paged form"),
    "save_strategy": _CHECKPOINTS,
    "save_steps": _CHECKPOINTS,
    "bf16": dropped("recipe field torch_dtype says it"),
    "fp16": dropped("recipe field torch_dtype says it"),
}

_ADAPTER: dict[str, Rule] = {
    **_SHARED,
    **{f"training_args.{name}": rule for name, rule in _TRAINING_ARGS.items()},
    **{f"training_args.{name}.**": rule for name, rule in _TRAINING_ARGS.items() if rule.verdict == "dropped"},
    "training_args": empty(),
    "training_args.extra_args": empty(),
    "type": Rule("renamed", "recipe field method", _method),
    "r": renamed("lora_r"),
    "lora_r": kept("lora_r"),
    "alpha": renamed("lora_alpha"),
    "lora_alpha": kept("lora_alpha"),
    "lora_dropout": kept("lora_dropout"),
    "target_modules": Rule("kept", "recipe field target_modules", _target_modules),
    "torch_dtype": Rule("kept", "recipe field torch_dtype; Olive's float16 keeps float32 weights", _torch_dtype),
    "train_data_config": dropped("a recipe has one corpus"),
    "eval_data_config": TEST_SET,
    "eval_dataset_size": Rule(
        "renamed",
        "recipe field eval_share; rows are held out by a hash of their group, beside the test rows (test_share), which "
        "no training ever sees",
        _share,
    ),
    "training_output_dir": HOME,
    "device_map": _DEVICES,
    "allow_tf32": dropped("off, so that a result does not hang on the kind of GPU"),
    "ephemeral_gpu_offload": _DEVICES,
    "use_ort_trainer": dropped("ONNX Runtime's trainer is gone; PyTorch trains"),
    "ortmodule_onnx_opset_version": dropped("ONNX Runtime's trainer is gone; PyTorch trains"),
    "bias": dropped("biases are not trained"),
    "modules_to_save": dropped("only the adapter's matrices are trained"),
}
_QLORA: dict[str, Rule] = {
    "quant_type": kept("quant_type"),
    "double_quant": kept("double_quant"),
    "compute_dtype": Rule("kept", "recipe field compute_dtype", _compute_dtype),
    "save_quant_config": dropped("the adapter is merged into the full-precision base model"),
}

_MODEL_BUILDER: dict[str, Rule] = {
    **_SHARED,
    "type": replaced("the step onnx_int4_model"),
    "precision": replaced("the step onnx_int4_model is always int4", _precision),
    "int4_block_size": kept("int4_block_size"),
    "block_size": renamed("int4_block_size"),
    "int4_accuracy_level": Rule("kept", "recipe field int4_accuracy_level", _accuracy_level),
    "accuracy_level": Rule("renamed", "recipe field int4_accuracy_level", _accuracy_level),
    "int4_is_symmetric": renamed("int4_symmetric"),
    "is_symmetric": renamed("int4_symmetric"),
    "int4_algo_config": Rule("renamed", "recipe field int4_algorithm", _algorithm),
    "algo_config": Rule("renamed", "recipe field int4_algorithm", _algorithm),
    "metadata_only": dropped("the model is always built"),
    "search": dropped("genai_config.json is written with settings that suit all variants"),
    "search.**": replaced("genai_config.json is written with settings that suit all variants"),
    "extra_options": empty(),
    "hf_remote": dropped("code of the repository is never run"),
    "hf_token": dropped("the environment variable HF_TOKEN"),
}
_MODEL_BUILDER_OTHERS = (
    "enable_cuda_graph exclude_embeds exclude_lm_head include_hidden_states int4_nodes_to_exclude nodes_to_exclude "
    "int4_op_types_to_quantize op_types_to_quantize use_8bits_moe use_cuda_bf16 use_qdq use_webgpu_fp32 adapter_path "
    "num_hidden_layers config_only shared_embeddings prune_lm_head filename int4_tied_embeddings "
    "matmul_mixed_precision kv_cache_quant_scheme "
)

# After Olive's Gptq, ModelBuilder finds 4-bit weights and exports them as they are.
_GPTQ: dict[str, Rule] = {
    **_SHARED,
    "type": Rule("replaced", "recipe field int4_algorithm", lambda value: {"int4_algorithm": "gptq"}),
    "bits": replaced("the step onnx_int4_model makes 4-bit weights", _four_bits),
    "group_size": renamed("int4_block_size"),
    "sym": renamed("int4_symmetric"),
    "data_config": replaced("gptq measures its errors on the corpus"),
}


def _pass_rules() -> dict[str, Rule]:
    rules: dict[str, Rule] = {}
    for name in FINE_TUNING:
        qlora = name in ("qlora", "loftq")
        others = dropped(f"a key of QLoRA; {name} never had it, and Olive ignores it there")
        keys = {**_ADAPTER, **(_QLORA if qlora else dict.fromkeys(_QLORA, others))}
        rules |= {f"passes.{name}.{key}": rule for key, rule in keys.items()}
    for key in _MODEL_BUILDER_OTHERS.split():
        rules[f"passes.modelbuilder.{key}"] = dropped("ModelBuilder's default holds")
    rules |= {f"passes.modelbuilder.{key}": rule for key, rule in _MODEL_BUILDER.items()}
    for name in GPTQ:
        rules |= {f"passes.{name}.{key}": rule for key, rule in _GPTQ.items()}
    merge = {**_SHARED, "type": replaced("the step merged_model")}
    return rules | {f"passes.mergeadapterweights.{key}": rule for key, rule in merge.items()}


GPTQ = ("gptq", "gptqmodel", "gptqquantizer", "autogptq")
PASS_RULES = _pass_rules()
