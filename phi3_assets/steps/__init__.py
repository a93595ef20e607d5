"""The eight steps, in the order of the graph. Each name is also its asset's and its artefact's.

Only this table is read while the code location loads; the functions are imported by the worker.
"""

from phi3_assets.core.step import Step

RAW_DATASET = Step(
    name="raw_dataset",
    code_version="4",
    inputs=("datasets",),  # not an artefact: the folder of the user's files, pinned by its content
    recipe_fields=(
        "dataset_shape",
        "question_column",
        "answer_column",
        "group_column",
        "test_share",
        "test_set",
        "conflicts",
        "near_duplicates",
        "near_duplicate_threshold",
        "personal_data",
        "secrets",
    ),
    libraries=("detect-secrets", "ijson", "orjson", "phonenumbers", "pyarrow", "python-stdnum", "rensa"),
    function="phi3_assets.steps.ingest:ingest",
)
BASE_MODEL = Step(
    name="base_model",
    code_version="2",
    inputs=(),  # a local directory, if the recipe names one, comes in as "base_model_directory"
    recipe_fields=("base_model", "base_model_revision"),
    libraries=("gguf", "huggingface_hub", "safetensors", "torch", "transformers"),
    function="phi3_assets.steps.base:fetch_base_model",
)
FORMATTED_CORPUS = Step(
    name="formatted_corpus",
    code_version="3",
    inputs=("raw_dataset", "base_model"),
    recipe_fields=(
        "question_column",
        "answer_column",
        "system_prompt",
        "text_template",
        "supervise",
        "strategy",
        "over_long",
        "max_seq_len",
    ),
    libraries=("jinja2", "orjson", "pyarrow", "tokenizers"),
    function="phi3_assets.steps.corpus:format_corpus",
)
LORA_ADAPTER = Step(
    name="lora_adapter",
    code_version="3",
    inputs=("base_model", "formatted_corpus"),
    recipe_fields=(
        "method",
        "quant_type",
        "double_quant",
        "compute_dtype",
        "lora_r",
        "lora_alpha",
        "lora_dropout",
        "target_modules",
        "learning_rate",
        "lr_scheduler_type",
        "warmup_steps",
        "num_train_epochs",
        "max_steps",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "processes",
        "gradient_checkpointing",
        "group_by_length",
        "weight_decay",
        "adam_beta2",
        "max_grad_norm",
        "torch_dtype",
        "seed",
        "data_seed",
        "eval_share",
        "eval_steps",
        "early_stopping_patience",
        "logging_steps",
    ),
    libraries=("accelerate", "bitsandbytes", "datasets", "olive-ai", "peft", "torch", "transformers"),
    function="phi3_assets.steps.finetune:train_lora",
)
MERGED_MODEL = Step(
    name="merged_model",
    code_version="1",
    inputs=("base_model", "lora_adapter"),
    recipe_fields=(),
    libraries=("olive-ai", "peft", "torch", "transformers"),
    function="phi3_assets.steps.merge:merge_adapter",
)
ONNX_INT4_MODEL = Step(
    name="onnx_int4_model",
    code_version="2",
    inputs=("merged_model", "formatted_corpus"),  # the corpus calibrates int4_algorithm gptq
    recipe_fields=(
        "execution_provider",
        "int4_block_size",
        "int4_algorithm",
        "int8_modules",
        "int4_symmetric",
        "int4_accuracy_level",
    ),
    libraries=("olive-ai", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-genai", "torch", "transformers"),
    function="phi3_assets.steps.quantize:build_int4",
)
EVAL_REPORT = Step(
    name="eval_report",
    code_version="4",
    inputs=("formatted_corpus", "base_model", "lora_adapter", "merged_model", "onnx_int4_model"),
    recipe_fields=("max_new_tokens",),
    libraries=(
        "jinja2",
        "matplotlib",
        "onnxruntime",
        "onnxruntime-genai",
        "peft",
        "torch",
        "torchmetrics",
        "transformers",
    ),
    function="phi3_assets.steps.evaluate:evaluate_variants",
)
RELEASE_BUNDLE = Step(
    name="release_bundle",
    code_version="5",
    inputs=("base_model", "onnx_int4_model", "eval_report"),
    recipe_fields=(
        "gate_metric",
        "gate_alpha",
        "gate_min_items",
        "gate_learnt_answers",
        "gate_min_gain_kept",
        "gate_min_stop_rate",
        "gate_max_general_nll_ratio",
    ),
    libraries=("cyclonedx-python-lib", "huggingface_hub", "numpy", "onnxruntime", "onnxruntime-genai"),
    function="phi3_assets.steps.release:bundle_release",
)

STEPS = {
    step.name: step
    for step in (
        RAW_DATASET,
        BASE_MODEL,
        FORMATTED_CORPUS,
        LORA_ADAPTER,
        MERGED_MODEL,
        ONNX_INT4_MODEL,
        EVAL_REPORT,
        RELEASE_BUNDLE,
    )
}
