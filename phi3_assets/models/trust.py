"""What a model's or an adapter's configuration can make transformers and PEFT fetch or run, and how it is kept out.

Looked up in transformers 5.23 and PEFT 0.21. None of these says anything about the model itself:

- `auto_map`, `custom_pipelines`: classes of the repository's own, at any depth (dynamic_module_utils, pipelines)
- `attn_implementation`, `experts_implementation`, also with "_": "owner/name" is a kernel of the hub, that is compiled
  code, and "flash_attention_2" becomes one where flash_attn is not installed (modeling_utils, integrations.hub_kernels)
- `use_kernels`, `kernel_config`: arguments of from_pretrained today, named here in case a configuration may set them
- `transformers_weights`: another file of weights than those that were checked (modeling_utils)
- `custom_generate`: a repository whose generate.py runs (generation.utils)
- `fast_tokenizer_files`: other files than tokenizer.json (tokenization_utils_base)
- a file adapter_config.json: from_pretrained follows its base_model_name_or_path to another model (integrations.peft)
- `quantization_config`: refused, since a quantised model can neither be trained whole nor merged, and loading one
  brings kernels and packages that the configuration names (quantizers)
"""

from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import read_json

LEFT_OUT = {"adapter_config.json"}
FOREIGN_CODE = {
    "auto_map",
    "custom_pipelines",
    "attn_implementation",
    "_attn_implementation",
    "_attn_implementation_internal",
    "experts_implementation",
    "_experts_implementation",
    "_experts_implementation_internal",
    "use_kernels",
    "kernel_config",
    "transformers_weights",
    "custom_generate",
    "fast_tokenizer_files",
}
# Large tables, in which a key is a word of the vocabulary or the name of a tensor.
_TABLES = ("tokenizer.json", "vocab.json", "added_tokens.json", ".index.json")
_MAX_CONFIG_BYTES = 16 << 20
# Of PEFT's LoraConfig: what is only of use before training, and is set back to its default.
_BEFORE_TRAINING = {"auto_mapping", "revision", "eva_config", "corda_config", "lora_ga_config", "loftq_config"}
_HARMLESS = {
    "peft_type",
    "peft_version",
    "task_type",
    "base_model_name_or_path",  # emptied when the adapter is published
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "lora_bias",
    "target_modules",
    "exclude_modules",
    "target_parameters",
    "modules_to_save",
    "trainable_token_indices",
    "layers_to_transform",
    "layers_pattern",
    "rank_pattern",
    "alpha_pattern",
    "bias",
    "fan_in_fan_out",
    "use_rslora",
    "use_dora",
    "init_lora_weights",
    "ensure_weight_tying",
}


def without_foreign_code(path: Path) -> Any | None:
    """What a file of a model directory holds without the keys in `FOREIGN_CODE`; None: it has none, copy it as it is.

    Raises:
        UserError: It is no JSON, or says that the model is quantised.
    """
    if path.suffix != ".json" or path.name.endswith(_TABLES):
        return None
    try:
        content = read_json(path, _MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise UserError(f"Base model: {path.name} is no JSON that can be read: {error}.") from None
    if path.name == "config.json":
        if not isinstance(content, dict):
            raise UserError("Base model: config.json is no object of keys and values.")
        if method := _quantised(content):
            raise UserError(
                f"Base model: config.json says that the model is quantised ({method}). Name the model it was made "
                "of; `method: qlora` quantises it for training."
            )
    cleaned = _cleaned(content)
    return None if cleaned == content else cleaned


def trusted_adapter_config(content: Any, where: Path) -> dict[str, Any]:
    """An adapter's configuration in which nothing is left that makes PEFT import a module or change the model's layers.

    `megatron_core` is the name of a module that PEFT imports; `auto_mapping` names another.

    Raises:
        UserError: A field outside of those that are known to be harmless has another value than PEFT's default.
    """
    from peft import LoraConfig

    if not isinstance(content, dict):
        raise UserError(f"adapter_path: {where} is no object of keys and values.")
    defaults = LoraConfig().to_dict()
    trusted = {}
    for name, value in content.items():
        if name in _HARMLESS:
            trusted[name] = value
        elif name in _BEFORE_TRAINING:
            trusted[name] = defaults[name]
        elif value == defaults.get(name):
            trusted[name] = value
        else:
            raise UserError(
                f"adapter_path: {where} sets {name!r:.60}, which is not taken from outside: it can run code or needs "
                "more than the adapter's weights. Only plain LoRA and DoRA adapters can be merged here."
            )
    return trusted


def _quantised(content: dict[str, Any]) -> str:
    for part in (content, *(value for value in content.values() if isinstance(value, dict))):
        for key in ("quantization_config", "compression_config"):
            if found := part.get(key):
                return str(found.get("quant_method", key))[:40] if isinstance(found, dict) else key
    return ""


def _cleaned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items() if key not in FOREIGN_CODE}
    return [_cleaned(one) for one in value] if isinstance(value, list) else value
