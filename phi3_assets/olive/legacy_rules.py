"""What each key of an Olive configuration, old or new, became in a recipe: the table that `legacy` works through.

Paths are written with dots. Before they are looked up, `config`, `params` and `extra_args` are left out (Olive lets
them be), a pass's own name becomes its type, and the top level and `engine` are one. `*` stands for one part.
"""

from typing import Any

from phi3_assets.olive.legacy_azure_rules import AZURE_RULES
from phi3_assets.olive.rule import Rule, dropped, kept, renamed, replaced

FINE_TUNING = ("lora", "dora", "qlora")

_TEST_SET = replaced("the step eval_report scores all variants on the held-out test set after training")
_EVALUATION = replaced("with eval_share the loss on its rows is computed every eval_steps steps and at the end")
_PLACE = Rule("renamed", "part of recipe field dataset_path")
_HOME = replaced("artefacts lie in PHI3_HOME by identity")


def _text_columns(columns: list[str]) -> dict[str, Any]:
    return dict(zip(("question_column", "answer_column"), columns, strict=False))


def _folder(files: Any) -> dict[str, Any]:
    """dataset_path is a folder; several files of one folder, or one file, name it."""
    first = files[0] if isinstance(files, list) else files
    head, slash, _ = str(first).rpartition("/")
    return {"dataset_path": head + slash if slash else "."}


def _share(size: float) -> dict[str, Any]:
    return {"eval_share": size} if 0 < size < 1 else {}


_STRATEGIES = {"line-by-line-random": "line-by-line", "join-random": "join", "join-sliding-window": "join"}

RULES: dict[str, Rule] = {
    **AZURE_RULES,
    # Input model
    "input_model.type": replaced("base models are always Hugging Face models (HfModel since Olive 0.7)"),
    "input_model.hf_config.model_name": renamed("base_model"),
    "input_model.model_path": renamed("base_model"),
    "input_model.hf_config.task": dropped("the task is always text-generation"),
    "input_model.task": dropped("the task is always text-generation"),
    "input_model.hf_config.from_pretrained_args.revision": renamed("base_model_revision"),
    "input_model.load_kwargs.revision": renamed("base_model_revision"),
    "input_model.hf_config.from_pretrained_args.trust_remote_code": dropped(
        "code of the repository is never run; transformers knows Phi-3 itself, and Phi-3's own code fails there"
    ),
    "input_model.load_kwargs.trust_remote_code": dropped("code of the repository is never run"),
    "input_model.adapter_path": replaced("an adapter of your own enters at merged_model, not in the recipe"),
    # Data
    "data_configs.*.name": dropped("a recipe has one corpus, so it needs no name"),
    "data_configs.*.type": replaced("the step raw_dataset reads csv, json, jsonl and parquet itself"),
    "data_configs.*.load_dataset_config.type": replaced(
        "the step raw_dataset reads csv, json, jsonl and parquet itself"
    ),
    "data_configs.*.load_dataset_config.data_name": replaced(
        "a file's kind is told by its name, its shape by its columns"
    ),
    "data_configs.*.load_dataset_config.data_files": replaced("recipe field dataset_path, the folder", _folder),
    # Of data on a datastore; see legacy._of_datastore for what names its place.
    "data_configs.*.load_dataset_config.data_files.type": replaced("recipe field dataset_path, an address"),
    "data_configs.*.load_dataset_config.data_files.datastore_name": _PLACE,
    "data_configs.*.load_dataset_config.data_files.relative_path": _PLACE,
    "data_configs.*.load_dataset_config.data_files.datastore_url": _PLACE,
    "data_configs.*.load_dataset_config.data_files.azureml_client.*": replaced(
        "recipe field dataset_path names the workspace where it is another than the one that steps run in"
    ),
    "data_configs.*.load_dataset_config.data_files.*": replaced(
        "put the file into PHI3_HOME/datasets or set dataset_path; a blob container works too: see docs/azureml.md"
    ),
    "data_configs.*.load_dataset_config.split": replaced(
        "all rows are read; test_share holds some out by their content"
    ),
    "data_configs.*.pre_process_data_config.type": replaced("the step formatted_corpus tokenises"),
    "data_configs.*.pre_process_data_config.dataset_type": dropped(
        "removed in Olive 0.7; there is only text generation"
    ),
    "data_configs.*.pre_process_data_config.text_cols": replaced(
        "recipe fields question_column and answer_column", _text_columns
    ),
    "data_configs.*.pre_process_data_config.text_template": kept("text_template"),
    "data_configs.*.pre_process_data_config.corpus_strategy": renamed("strategy"),
    "data_configs.*.pre_process_data_config.strategy": Rule(
        "kept", "recipe field strategy", lambda value: {"strategy": _STRATEGIES.get(value, value)}
    ),
    "data_configs.*.pre_process_data_config.source_max_len": renamed("max_seq_len"),
    "data_configs.*.pre_process_data_config.max_seq_len": kept("max_seq_len"),
    "data_configs.*.pre_process_data_config.pad_to_max_len": dropped("batches are padded no further than they must be"),
    "data_configs.*.pre_process_data_config.use_attention_mask": dropped("no token ever sees padding"),
    "data_configs.*.pre_process_data_config.add_special_tokens": dropped(
        "the text has the special tokens of its template"
    ),
    # Engine
    "log_severity_level": dropped("a step's log is always kept"),
    "host": replaced("PHI3_EXECUTION"),
    "target": replaced("recipe field execution_provider"),
    "search_strategy": dropped("nothing is searched"),
    "evaluate_input_model": _TEST_SET,
    "evaluator": _TEST_SET,
    "evaluators.*": _TEST_SET,
    "cache_dir": _HOME,
    "output_dir": _HOME,
    "output_name": _HOME,
    "workflow_id": _HOME,
    # Merging and quantising
    "passes.mergeadapterweights.type": replaced("the step merged_model"),
    "passes.modelbuilder.type": replaced("the step onnx_int4_model"),
    "passes.modelbuilder.precision": replaced("the step onnx_int4_model is always int4"),
    "passes.modelbuilder.int4_block_size": kept("int4_block_size"),
    "passes.modelbuilder.int4_accuracy_level": kept("int4_accuracy_level"),
    "passes.modelbuilder.metadata_only": dropped("the model is always built"),
    "passes.modelbuilder.search.*": replaced("genai_config.json is written with settings that suit all variants"),
}

_HOST = replaced("PHI3_EXECUTION of the asset, such as PHI3_EXECUTION_LORA_ADAPTER")
for _key in ("mergeadapterweights", "modelbuilder"):
    RULES[f"passes.{_key}.host"] = _HOST

_EVERY_PASS = {
    "host": _HOST,
    "type": Rule("renamed", "recipe field method", lambda value: {"method": value.lower()}),
    "r": renamed("lora_r"),
    "lora_r": kept("lora_r"),
    "alpha": renamed("lora_alpha"),
    "lora_alpha": kept("lora_alpha"),
    "lora_dropout": kept("lora_dropout"),
    "target_modules": kept("target_modules"),
    "torch_dtype": kept("torch_dtype"),
    "train_data_config": dropped("a recipe has one corpus"),
    "eval_data_config": _TEST_SET,
    "eval_dataset_size": Rule(
        "renamed",
        "recipe field eval_share; rows are held out by a hash of their group, beside the test rows (test_share), which "
        "no training ever sees",
        _share,
    ),
    "training_args.per_device_eval_batch_size": dropped("evaluation sizes its batches itself"),
    "training_args.evaluation_strategy": _EVALUATION,
    "training_args.eval_strategy": _EVALUATION,
    "training_args.eval_steps": kept("eval_steps"),
    "training_args.load_best_model_at_end": replaced("with eval_share the best adapter is always the one kept"),
    "training_args.metric_for_best_model": replaced("the loss on the rows of eval_share decides"),
    "training_args.greater_is_better": replaced("the loss on the rows of eval_share decides; less is better"),
    "training_args.train_sampling_strategy": replaced(
        "recipe field group_by_length", lambda value: {"group_by_length": value == "group_by_length"}
    ),
    "training_args.warmup_ratio": dropped("gone from transformers 5.15; set warmup_steps"),
    "training_args.output_dir": _HOME,
    "training_args.overwrite_output_dir": _HOME,
    "training_args.report_to": dropped("progress is reported to Dagster"),
    "training_args.optim": dropped("AdamW; for QLoRA on a GPU its paged form"),
    "training_args.save_strategy": dropped("checkpoints are taken by time and belong to the step's identity"),
    "training_args.save_steps": dropped("checkpoints are taken by time and belong to the step's identity"),
    "quant_type": kept("quant_type"),
    "double_quant": kept("double_quant"),
    "compute_dtype": kept("compute_dtype"),
    "save_quant_config": dropped("the adapter is merged into the full-precision base model"),
}
_SAME_NAME = [
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "num_train_epochs",
    "max_steps",
    "logging_steps",
    "group_by_length",
    "adam_beta2",
    "max_grad_norm",
]

for _name in FINE_TUNING:
    RULES |= {f"passes.{_name}.{key}": rule for key, rule in _EVERY_PASS.items()}
    RULES |= {f"passes.{_name}.training_args.{key}": kept(key) for key in _SAME_NAME}
    if _name != "qlora":
        for _key in ("quant_type", "double_quant", "compute_dtype", "save_quant_config"):
            RULES[f"passes.{_name}.{_key}"] = dropped(
                f"a key of QLoRA; {_name} never had it, and Olive ignores it there"
            )

# Fields an Olive pass takes where its configuration names none, and where the recipe's own default is another.
DEFAULTS: dict[str, Any] = {
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 3,
    "per_device_train_batch_size": 8,
    "gradient_checkpointing": True,
    "group_by_length": False,
    "max_grad_norm": 1.0,
    "torch_dtype": "bfloat16",
    "supervise": "all",
}
