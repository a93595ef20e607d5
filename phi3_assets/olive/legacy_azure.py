"""What the AzureML blocks of an Olive configuration become: settings of Azure, and an address of the training data.

Olive 0.6 had one system for both of the cookbook's targets: `aml` and `azure_arc` differ in their names alone.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
import yaml

from phi3_assets.azure.settings import CONFIG, AzureSettings
from phi3_assets.olive.legacy_view import View
from phi3_assets.olive.legacy_walk import mapping

EXECUTION = "PHI3_EXECUTION"
# How the types of Olive's systems in Azure begin, AzureML and AzureND12SSystem among them; and the secret that they
# read in the key vault when hf_token was true.
AZURE_SYSTEMS = "azure"
HF_TOKEN_SECRET = "hf-token"  # noqa: S105 (a secret's name)

_ASSETS = {
    "lora": "lora_adapter",
    "dora": "lora_adapter",
    "qlora": "lora_adapter",
    "mergeadapterweights": "merged_model",
    "modelbuilder": "onnx_int4_model",
}
_PLACEHOLDER = re.compile(r"\s*(your\s.*|<.*>)\s*", re.IGNORECASE | re.DOTALL)
_HOLE = re.compile(r"<[^<>|]+>|\{\{.*?\}\}|\{%[^%]*%\}|\$\{[^}]*\}")
_SECRET_KEY = re.compile(r"(^|_)(token|secret|password|passwd|account_key|sas|sas_token|connection_string)$")
_SECRET_VALUE = re.compile(r"\bhf_[A-Za-z0-9]{16,}|[?&;]sig=|AccountKey=|SharedAccessSignature|://[^/@\s]*:[^/@\s]+@")


def is_placeholder(value: Any) -> bool:
    """Whether a value is left to be filled in, as all of the cookbook's are: 'Your Azure Subscription ID'."""
    return isinstance(value, str) and (not value.strip() or _PLACEHOLDER.fullmatch(value) is not None)


def is_hole(value: Any) -> bool:
    """Whether a value is a template's hole as a whole: <lora_r>, {{ lora_r }}, ${LORA_R}."""
    return isinstance(value, str) and _HOLE.fullmatch(value.strip()) is not None


def has_hole(value: str) -> bool:
    """Whether an address or a path is left to be filled in, or has a template's hole in it."""
    return is_placeholder(value) or _HOLE.search(value) is not None


def holds_secret(path: tuple[str, ...], value: Any) -> bool:
    """Whether a value is a secret, by its key or by its looks; what only says that there is one is none."""
    strings = list(_strings(value))
    if any(_SECRET_VALUE.search(text) for text in strings):
        return True
    named = _SECRET_KEY.search(str(path[-1]).lower()) is not None
    return named and any(text and not is_placeholder(text) for text in strings)


def problem_with(fields: Mapping[str, Any]) -> str:
    """Why a setting does not take a value; "" if it does."""
    known = {name: value for name, value in fields.items() if name in AzureSettings.model_fields}
    try:
        AzureSettings(**known)
    except pydantic.ValidationError as error:
        return "; ".join(one["msg"] for one in error.errors())
    return ""


def host_of(view: View) -> str:
    """Name of the system that the passes run on; "" where they run on the machine that Olive was started on."""
    named = view.system_of("host") or view.system_of("target")
    remote = [name for name, system in view.systems.items() if _is_remote(system)]
    return named or (remote[0] if len(remote) == 1 else "")


def execution_of(name: str, view: View) -> str:
    """What PHI3_EXECUTION is for a system: local, azureml or azure_arc."""
    if not _is_remote(view.systems.get(name)):
        return "local"
    return "azure_arc" if "arc" in name.lower() else "azureml"


def executions(view: View) -> dict[str, str]:
    """Environment variables that say where steps run: PHI3_EXECUTION, and one for each pass with a host of its own."""
    overall = execution_of(host_of(view), view)
    chosen = {EXECUTION: overall} if overall != "local" else {}
    for one in view.passes:
        asset, own = _ASSETS.get(one.type), one.values.get("host")
        if asset and isinstance(own, str) and execution_of(own, view) != overall:
            chosen[f"{EXECUTION}_{asset.upper()}"] = execution_of(own, view)
    return chosen


def data_address(block: Mapping[str, Any], client: Mapping[str, Any]) -> tuple[str, str]:
    """Where the training data is, for recipe field dataset_path, which is a folder.

    Args:
        block: Of the configuration, of type azureml_datastore: datastore_name and relative_path, or datastore_url.
        client: The workspace that steps run in.

    Returns:
        The address, "" where there is none to give; and a sentence about it.
    """
    block = {name: value for name, value in block.items() if not isinstance(value, str) or value.strip()}
    for name in ("datastore_url", "datastore_name", "relative_path"):
        if not isinstance(block.get(name, ""), str):
            return "", f"{name} is no text; set recipe field dataset_path to the folder of your data"
    if url := block.get("datastore_url"):
        return ("", _fill_in("azureml://datastores/<name>/paths/<folder>/")) if is_placeholder(url) else _of_folder(url)
    store = block.get("datastore_name") or "workspaceblobstore"
    relative = block.get("relative_path") or ""
    root = f"azureml://datastores/{store}/paths/"
    if is_placeholder(store) or is_placeholder(relative):
        return "", _fill_in(f"{'azureml://datastores/<name>/paths/' if is_placeholder(store) else root}<folder>/")
    own = mapping(block.get("azureml_client"))
    names = ("subscription_id", "resource_group", "workspace_name")
    if all(own.get(name) and not is_placeholder(own[name]) for name in names) and any(
        own[name] != client.get(name) for name in names
    ):
        subscription, group, workspace = (own[name] for name in names)
        root = (
            f"azureml://subscriptions/{subscription}/resourcegroups/{group}/workspaces/{workspace}"
            f"/datastores/{store}/paths/"
        )
    return _of_folder(root + relative.strip("/"))


def settings_yaml(values: Mapping[str, Any], blanks: Mapping[str, str], command: str) -> str:
    """The settings as the YAML file that PHI3_AZURE_CONFIG names, in their own order."""
    lines = [f"# {command}", "# What each key means: docs/azureml.md. `phi3 azure check` says whether it is right.", ""]
    for name in AzureSettings.model_fields:
        if name in values:
            lines.append(yaml.safe_dump({name: values[name]}, allow_unicode=True).strip())
        elif name in blanks:
            lines.append(f'{name}: ""  # fill in: {" ".join(blanks[name].split())}')
    return "\n".join(lines) + "\n"


def run_command(recipe: str, settings: str, chosen: Mapping[str, str]) -> str:
    """The command that runs a recipe with these settings."""
    variables = {**chosen, CONFIG: settings} if settings else chosen
    return " ".join([*(f"{name}={value}" for name, value in variables.items()), f"phi3 run --recipe {recipe}"])


def _is_remote(system: Any) -> bool:
    return isinstance(system, Mapping) and str(system.get("type")).lower().startswith(AZURE_SYSTEMS)


def _of_folder(address: str) -> tuple[str, str]:
    """The folder of an address that may be one of a file."""
    head, slash, last = address.rstrip("/").rpartition("/")
    if not re.search(r"\.\w+$", last):
        return address.rstrip("/") + "/", "recipe field dataset_path"
    if not slash or head.endswith("/paths"):
        return "", (
            f"{last} lies in the datastore's root; put it into a folder of its own and set dataset_path: "
            f"{head}/<folder>/"
        )
    return f"{head}/", f"recipe field dataset_path, the folder: other files of data beside {last} are read too"


def _fill_in(address: str) -> str:
    return f"a placeholder; set recipe field dataset_path to the folder of your data, as in {address}"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner)
