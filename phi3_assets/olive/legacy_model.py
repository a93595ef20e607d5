"""Which base model an Olive configuration starts from: recipe fields base_model and base_model_revision."""

import re
from typing import Any

from phi3_assets.core.recipe_data import is_hub_id
from phi3_assets.core.recipe_file import load_recipe, shipped_recipes
from phi3_assets.olive import legacy_azure as azure
from phi3_assets.olive.legacy_walk import flat, mapping

MODEL = "<hub repository or folder of the base model>"
_SCHEMES = ("pypi:", "random:")
_HUB_PAGE = re.compile(r"https://(?:www\.)?huggingface\.co/(?P<name>[\w.-]+/[\w.-]+?)(/tree/.*)?/?")
_ARGUMENTS = ("load_kwargs", "from_pretrained_args", "model_loading_args")


def base_model_of(input_model: Any) -> tuple[str, str]:
    """The base model, and a sentence about it where it is to be filled in.

    Args:
        input_model: That part of the configuration, whatever it is.
    """
    if isinstance(input_model, str):
        return _named(input_model)
    found = flat(input_model)
    hf_config = flat(found.get("hf_config"))
    kind = str(found.get("type", "hfmodel")).lower()
    if not kind.startswith(("hf", "pytorch", "optimum", "distributedhf")):
        return MODEL, f"a recipe starts from a Hugging Face model, not from {found['type']}: set base_model"
    value = found.get("model_path") or hf_config.get("model_name")
    if isinstance(value, dict):
        resource = flat(value)
        if not str(resource.get("type")).lower().startswith(("local", "string", "file", "folder")):
            return MODEL, f"a model of type {resource.get('type')}: download it, and set base_model to its folder"
        value = resource.get("path") or resource.get("name")
    if not isinstance(value, str) or azure.holds_secret(("model_path",), value):
        return MODEL, "the configuration names no base model: set base_model"
    return _named(value)


def revision_of(input_model: Any, base_model: str) -> tuple[str, str]:
    """What pins the base model, with where that comes from; "" and a sentence where it is to be filled in."""
    given = _given(input_model)
    if is_hub_id(base_model) and re.fullmatch("[0-9a-f]{40}", given):
        return given, "the configuration's"
    for name in shipped_recipes():
        shipped = load_recipe(name)
        if shipped.base_model == base_model:
            return shipped.base_model_revision, f"what recipe {name} is pinned to"
    if not is_hub_id(base_model):
        return "", ""
    moves = f" ({given} can move under you)" if given else ""
    return "", f"set base_model_revision to the commit of {base_model} that is meant, 40 hex digits{moves}"


def _given(input_model: Any) -> str:
    found = flat(input_model)
    for holder in (found, flat(found.get("hf_config"))):
        for name in _ARGUMENTS:
            value = mapping(holder.get(name)).get("revision")
            if isinstance(value, str) and not azure.has_hole(value):
                return value
    return ""


def _named(value: str) -> tuple[str, str]:
    value = value.strip()
    if not value or azure.has_hole(value):
        return MODEL, "a placeholder stands where the base model is named: set base_model"
    if page := _HUB_PAGE.fullmatch(value):
        return page["name"], ""
    if value.startswith(_SCHEMES) or is_hub_id(value) or value[0] in "./~":
        return value, ""
    if "://" in value or value.startswith("azureml:"):
        return MODEL, f"{value} is no folder: download the model, and set base_model to its folder"
    if re.fullmatch(r"[\w.-]+", value):
        return MODEL, f"{value!r} has no owner: set base_model to owner/name of the hub, or to ./{value} for a folder"
    # Olive takes what is no repository for a path from where it is started.
    return (value if re.match(r"[A-Za-z]:", value) else f"./{value.replace(chr(92), '/')}"), ""
