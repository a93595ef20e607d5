"""What each key of an Olive configuration, old or new, became in a recipe: the table that `legacy` works through.

Paths are written with dots, in the form that `legacy_view` brings them to. Passes that are no step: `legacy_passes`.
"""

from typing import Any

from phi3_assets.olive.legacy_azure_rules import AZURE_RULES
from phi3_assets.olive.legacy_data import OWN_COMPONENTS
from phi3_assets.olive.legacy_find import Rules
from phi3_assets.olive.legacy_pass_rules import HOME, NO_CODE, PASS_RULES, REUSE, TEST_SET
from phi3_assets.olive.rule import NotTaken, Rule, dropped, empty, kept, renamed, replaced

_PLACE = Rule("renamed", "part of recipe field dataset_path")
_READER = replaced("the step raw_dataset reads csv, json, jsonl and parquet itself")
_LOADING = dropped("the step base_model loads and checks the model itself")
_LOGS = dropped("a step's log is always kept")
_BASE_MODEL = Rule("renamed", "recipe field base_model")
_REVISION = Rule("renamed", "recipe field base_model_revision")
_STRATEGIES = {"line-by-line-random": "line-by-line", "join-random": "join", "join-sliding-window": "join"}


def _text_columns(value: Any) -> dict[str, Any]:
    columns = [value] if isinstance(value, str) else value
    if not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
        raise NotTaken("refused", "not names of columns; set question_column and answer_column")
    if [name.casefold() for name in columns] == ["text"]:
        return {"dataset_shape": "text"}
    if len(columns) != 2:
        raise NotTaken(
            "refused",
            f"{len(columns)} columns, where rows have a question and an answer: set question_column and answer_column",
        )
    return {"question_column": columns[0], "answer_column": columns[1]}


def _task(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and not value.startswith("text-generation"):
        raise NotTaken("refused", f"{value}; a recipe's models generate text")
    return {}


def _component(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value.lower() not in OWN_COMPONENTS:
        raise NotTaken("refused", f"{value} is code, which is never run: store the rows that it makes, and read those")
    return {}


def _rows_left_out(what: str) -> Rule:
    def refuse(value: Any) -> dict[str, Any]:
        raise NotTaken("refused", f"{what}; store the rows that are meant, and set dataset_path to their folder")

    return Rule("refused", what, refuse)


def _chat_template(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        raise NotTaken("refused", "the base model's own chat template is used")
    return {"dataset_shape": "messages"} if value else {}


def _message_column(value: Any) -> dict[str, Any]:
    if value != "messages":
        raise NotTaken("refused", "a recipe's chats stand in the column messages (or conversations): rename it")
    return {"dataset_shape": "messages"}


def _under(prefix: str, names: str, rule: Rule) -> dict[str, Rule]:
    """The same rule for several keys, and for whatever stands in them."""
    return {f"{prefix}{name}{end}": rule for name in names.split() for end in ("", ".**")}


_DATA_HOLDERS = (
    *("load_dataset_config", "pre_process_data_config", "params_config", "component_kwargs", "components"),
    *("default_components", "default_components_type"),
)
_LOAD = "data_configs.*.load_dataset_config."
_FILES = f"{_LOAD}data_files."
_PRE = "data_configs.*.pre_process_data_config."

_MODEL_RULES: dict[str, Rule] = {
    "input_model": _BASE_MODEL,
    "input_model.type": replaced("base models are always Hugging Face models (HfModel since Olive 0.7)"),
    **_under("input_model.", "hf_config.model_name model_path", _BASE_MODEL),
    **_under("input_model.", "hf_config.task task", replaced("the task is always text-generation", _task)),
    "input_model.hf_config": empty(),
    "input_model.adapter_path": replaced("recipe field adapter_path", lambda value: {"adapter_path": value}),
    **_under("input_model.", "model_script script_dir model_loader dummy_inputs_func", NO_CODE),
    **_under(
        "input_model.",
        "io_config model_attributes model_file_format mlflow_transformer_model_cache_dir generative onnx_file_name "
        "inference_settings use_ort_extensions external_initializers_file_name constant_inputs_file_name is_file name "
        "model_components model_component_names model_name_pattern num_ranks input_names input_shapes output_names "
        "output_shapes is_pytorch_model model_storage_kind load_kwargs test_model_config test_model_path "
        "hf_config.components hf_config.dataset hf_config.feature hf_config.model_class "
        "hf_config.from_pretrained_args hf_config.model_loading_args "
        "quant_attrs model_variant version generation_config resource_type framework extra_args",
        _LOADING,
    ),
}
for _args in ("hf_config.from_pretrained_args", "hf_config.model_loading_args", "load_kwargs"):
    _MODEL_RULES[f"input_model.{_args}.revision"] = _REVISION
    _MODEL_RULES[f"input_model.{_args}.trust_remote_code"] = dropped(
        "code of the repository is never run; transformers knows Phi-3 itself, and Phi-3's own code fails there"
    )

_DATA_RULES: dict[str, Rule] = {
    "data_configs": empty(),
    "data_configs.*": empty(),
    "data_configs.*.name": dropped("a recipe has one corpus, so it needs no name"),
    "data_configs.*.type": _READER,
    **_under("data_configs.*.", "user_script script_dir", NO_CODE),
    **{f"data_configs.*.{name}": empty() for name in _DATA_HOLDERS},
    **_under(
        "data_configs.*.",
        "post_process_data_config dataloader_config post_process_data dataloader",
        dropped("training and evaluation make their batches themselves"),
    ),
    f"{_LOAD}type": replaced("the step raw_dataset reads the data itself", _component),
    f"{_LOAD}name": replaced("the step raw_dataset reads the data itself"),
    **_under(_LOAD, "data_name data_dir", replaced("recipe field dataset_path says what is read")),
    f"{_LOAD}data_files": replaced("recipe field dataset_path, the folder"),
    f"{_FILES}*": replaced("recipe field dataset_path, the folder"),
    # Of data on a datastore; see `legacy_data` for what names its place.
    f"{_FILES}type": replaced("recipe field dataset_path, an address"),
    f"{_FILES}datastore_name": _PLACE,
    f"{_FILES}relative_path": _PLACE,
    f"{_FILES}datastore_url": _PLACE,
    f"{_FILES}azureml_client.*": replaced(
        "recipe field dataset_path names the workspace where it is another than the one that steps run in"
    ),
    f"{_LOAD}split": replaced("all rows are read; test_share holds some out by their content"),
    f"{_LOAD}subset": _rows_left_out("dataset_path takes the default subset of a dataset"),
    **_under(_LOAD, "col_filters", _rows_left_out("rows are not filtered")),
    f"{_LOAD}max_samples": _rows_left_out("all rows are read"),
    f"{_LOAD}revision": _PLACE,
    **_under(
        _LOAD,
        "token use_auth_token trust_remote_code streaming num_proc cache_dir keep_in_memory label_cols batch_size task "
        "model_name input_cols download_mode verification_mode features storage_options data_root shuffle seed",
        dropped("the step raw_dataset reads the data itself"),
    ),
    f"{_PRE}type": replaced("the step formatted_corpus tokenises", _component),
    f"{_PRE}name": replaced("the step formatted_corpus tokenises"),
    f"{_PRE}dataset_type": dropped("removed in Olive 0.7; there is only text generation"),
    f"{_PRE}text_cols": replaced("recipe fields question_column and answer_column", _text_columns),
    f"{_PRE}text_template": kept("text_template"),
    f"{_PRE}input_col": renamed("question_column"),
    f"{_PRE}output_col": renamed("answer_column"),
    f"{_PRE}chat_template": replaced("recipe field dataset_shape: messages, as rows are told apart", _chat_template),
    f"{_PRE}message_col": replaced("recipe field dataset_shape: messages", _message_column),
    **{
        f"{_PRE}{name}": Rule(
            verdict,
            "recipe field strategy",
            lambda value: {"strategy": _STRATEGIES.get(value, value) if isinstance(value, str) else value},
        )
        for name, verdict in (("strategy", "kept"), ("corpus_strategy", "renamed"))
    },
    f"{_PRE}source_max_len": renamed("max_seq_len"),
    f"{_PRE}max_seq_len": kept("max_seq_len"),
    f"{_PRE}max_samples": _rows_left_out("all rows are read"),
    f"{_PRE}pad_to_max_len": dropped("batches are padded no further than they must be"),
    f"{_PRE}use_attention_mask": dropped("no token ever sees padding"),
    f"{_PRE}add_special_tokens": dropped("the text has the special tokens of its template"),
    **_under(_PRE, "text_formatting_func input_formatting_func output_formatting_func", NO_CODE),
    **_under(
        _PRE,
        "padding_side joiner stride drop_short_sequences processing_batch_size random_retries random_seed seed kwargs "
        "model_name trust_remote_code task label_cols label_col input_cols max_length padding truncation pair_format "
        "ignore_source_in_labels target_max_len input_template output_template tokenizer limit text_col",
        dropped("the step formatted_corpus makes training rows in its own way; see its docs"),
    ),
}

_ENGINE_RULES: dict[str, Rule] = {
    "engine": empty(),
    "passes": empty(),
    "systems": empty(),
    "systems.*": empty(),
    "azureml_client": empty(),
    **_under(
        "", "log_severity_level ort_log_severity_level ort_py_log_severity_level log_to_file verbose debug", _LOGS
    ),
    "host": replaced("PHI3_EXECUTION"),
    "workflow_host": replaced("PHI3_EXECUTION"),
    "target": replaced("recipe field execution_provider"),
    "execution_providers": replaced("recipe field execution_provider"),
    **_under("", "search_strategy search_algorithm search_algorithm_config", dropped("nothing is searched")),
    **_under("", "auto_optimizer_config plot_pareto_frontier", dropped("nothing is searched")),
    "pass_flows": dropped("a recipe has one order of steps"),
    **_under("", "evaluate_input_model evaluator evaluators", TEST_SET),
    **_under("", "cache_dir cache_config output_dir output_name workflow_id no_artifacts", HOME),
    **_under("", "clean_cache clean_evaluation_cache clean_run_cache enable_shared_cache", REUSE),
    **_under("", "packaging_config", replaced("the step release_bundle")),
    "data_root": _PLACE,
    **_under("", "name version description", dropped("for people")),
    **_under("", "olive_version is_dev", dropped("of Olive itself")),
}

RULES = Rules({**AZURE_RULES, **_MODEL_RULES, **_DATA_RULES, **_ENGINE_RULES, **PASS_RULES})

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
    "max_seq_len": 1024,
    "torch_dtype": "bfloat16",
    "supervise": "all",
}
GPTQ_DEFAULTS: dict[str, Any] = {"int4_block_size": 128, "int4_symmetric": False}
