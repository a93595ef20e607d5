"""What each key of the AzureML blocks of an Olive configuration became; part of the table of `legacy_rules`.

The names are those that Olive had until it dropped AzureML after 0.9.2.
"""

from typing import Any

from phi3_assets.olive.legacy_azure import HF_TOKEN_SECRET
from phi3_assets.olive.rule import Rule, dropped, empty, replaced


def _setting(old: str, field: str) -> Rule:
    return Rule(
        "kept" if old == field else "renamed",
        f"setting {field} of Azure",
        settings=lambda value: {field: value},
    )


def _environment(part: str) -> Rule:
    # Name and version stand in two keys and become one; see `legacy.convert`.
    return Rule("renamed", "setting environment of Azure", settings=lambda value: {f"environment_{part}": value})


def _hf_token(wanted: Any) -> dict[str, Any]:
    return {"hf_token_secret": HF_TOKEN_SECRET} if wanted is True else {}


_OWN_IMAGE = dropped(
    "an image of your own: make an environment of it (`az ml environment create --build-context ...`) and name that in "
    "setting environment of Azure"
)
_WHO = replaced("who you are is found by DefaultAzureCredential: `az login`, or AZURE_* variables")
_TAGS = dropped("jobs carry step, identity and Dagster's run as tags")
_PATIENCE = replaced("what may pass is tried again for setting grace_minutes of Azure")
_NOT_NEEDED = dropped("of other systems than AzureML; steps run in the environment that Dagster runs in")

_CLIENT = {
    "subscription_id": _setting("subscription_id", "subscription_id"),
    "resource_group": _setting("resource_group", "resource_group"),
    "workspace_name": _setting("workspace_name", "workspace"),
    "keyvault_name": _setting("keyvault_name", "key_vault"),
    "aml_config_path": replaced("the file holds the same three values: put them into the settings of Azure"),
    "read_timeout": _PATIENCE,
    "max_operation_retries": _PATIENCE,
    "operation_retry_interval": _PATIENCE,
    "default_auth_params": _WHO,
    "default_auth_params.*": _WHO,
}

_SYSTEM = {
    "type": replaced("where a step runs is PHI3_EXECUTION: local, azureml or azure_arc"),
    "accelerators": replaced(
        "training takes a GPU where there is one; the target's execution provider is recipe field execution_provider"
    ),
    "hf_token": Rule(
        "replaced",
        f"true: setting hf_token_secret of Azure, {HF_TOKEN_SECRET}, the name that Olive read in the key vault; on "
        "this machine the environment variable HF_TOKEN",
        settings=_hf_token,
    ),
    "aml_compute": _setting("aml_compute", "compute"),
    "instance_count": _setting("instance_count", "instance_count"),
    "instance_type": _setting("instance_type", "instance_type"),
    "resources.instance_count": _setting("instance_count", "instance_count"),
    "resources.instance_type": _setting("instance_type", "instance_type"),
    "resources.shm_size": _setting("shm_size", "shm_size"),
    "aml_docker_config.base_image": _setting("base_image", "base_image"),
    "aml_docker_config.conda_file_path": replaced(
        "the conda file is made from the versions installed where Dagster runs, which a result's identity names"
    ),
    "aml_docker_config.dockerfile": _OWN_IMAGE,
    "aml_docker_config.build_context_path": _OWN_IMAGE,
    "aml_docker_config.name": replaced("the environment is called phi3-assets"),
    "aml_docker_config.version": replaced("the environment's version is a hash of what it is made of"),
    "aml_environment_config.name": _environment("name"),
    "aml_environment_config.version": _environment("version"),
    "aml_environment_config.label": dropped("a label can move; name a version in setting environment of Azure"),
    "is_dev": dropped("a job is sent this very package, whatever its state"),
    "olive_managed_env": dropped("the environment is always made, and referenced from then on"),
    "tags": _TAGS,
    "tags.*": _TAGS,
    "python_environment_path": _NOT_NEEDED,
    "prepend_to_path": _NOT_NEEDED,
    "environment_variables": _NOT_NEEDED,
    "environment_variables.*": _NOT_NEEDED,
    "requirements_file": _NOT_NEEDED,
    "local_docker_config": _NOT_NEEDED,
    "local_docker_config.**": _NOT_NEEDED,
    "build_args": _NOT_NEEDED,
    "build_args.**": _NOT_NEEDED,
    "run_params": _NOT_NEEDED,
    "run_params.**": _NOT_NEEDED,
    "work_dir": _NOT_NEEDED,
    "clean_image": _NOT_NEEDED,
    "datastores": _NOT_NEEDED,
    "resources": empty(),
    "resources.properties.**": dropped("of a service that Olive's authors use themselves"),
    "image_name": _NOT_NEEDED,
    "dockerfile": _NOT_NEEDED,
    "build_context_path": _NOT_NEEDED,
}

AZURE_RULES: dict[str, Rule] = {
    **{f"azureml_client.{key}": rule for key, rule in _CLIENT.items()},
    **{f"systems.*.{key}": rule for key, rule in _SYSTEM.items()},
    **{f"systems.*.azureml_client_config.{key}": rule for key, rule in _CLIENT.items()},
    # In 0.4 a system named the file of its workspace itself.
    "systems.*.aml_config_path": _CLIENT["aml_config_path"],
    "systems.*.azureml_client_config": empty(),
    "systems.*.aml_docker_config": empty(),
    "systems.*.aml_environment_config": empty(),
    "systems.*.config": empty(),
}
