"""The AzureML blocks of Olive's configurations come in as settings of Azure, whole, and without anybody's secret."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from phi3_assets.azure.settings import load_settings
from phi3_assets.core.recipe_file import validate
from phi3_assets.olive.legacy import convert, import_config
from phi3_assets.olive.legacy_azure import settings_yaml
from phi3_assets.olive.legacy_data import FOLDER
from phi3_assets.olive.legacy_imported import Imported
from phi3_assets_tests.olive.test_legacy import LORA, QLORA

SUBSCRIPTION = "6560575d-0000-0000-0000-000000000000"


@pytest.fixture
def config() -> dict[str, Any]:
    """The cookbook's configuration, filled in."""
    found = json.loads(LORA.read_text())
    client = {"subscription_id": SUBSCRIPTION, "resource_group": "rg", "workspace_name": "ws"}
    found["azureml_client"] = {**client, "keyvault_name": "vault"}
    found["systems"]["aml"]["config"]["aml_compute"] = "gpu"
    found["systems"]["azure_arc"]["config"]["aml_compute"] = "edge"
    block(found).update(azureml_client=client, relative_path="desk/train_data.json")
    return found


def block(config: dict[str, Any]) -> dict[str, Any]:
    return config["data_configs"][0]["load_dataset_config"]["params"]["data_files"]["config"]


def line(imported: Imported, ending: str) -> tuple[str, str]:
    (found,) = [line for line in imported.report if line.key.endswith(ending)]
    return found.verdict, found.why


def test_blocks_become_the_settings(config: dict[str, Any], tmp_path: Path) -> None:
    imported = convert(config)
    assert imported.settings == {
        "subscription_id": SUBSCRIPTION,
        "resource_group": "rg",
        "workspace": "ws",
        "key_vault": "vault",
        "hf_token_secret": "hf-token",
        "compute": "gpu",
        "base_image": "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04",
    }
    assert imported.executions == {"PHI3_EXECUTION": "azureml"}
    assert imported.values["dataset_path"] == "azureml://datastores/workspaceblobstore/paths/desk/"
    assert validate(imported.values, "imported")
    verdict, why = line(imported, "azure_arc.config.aml_compute")
    assert (verdict, why) == ("dropped", "passes run on aml; for azure_arc set compute: edge with azure_arc")
    path = tmp_path / "azure.yaml"
    path.write_text(settings_yaml(imported.settings, imported.blanks, "phi3 run"))
    settings = load_settings({"PHI3_AZURE_CONFIG": str(path)})
    assert settings.model_dump(include=set(imported.settings)) == imported.settings


def test_arc_as_host_takes_its_compute(config: dict[str, Any]) -> None:
    config["engine"]["host"] = "azure_arc"
    config["systems"]["azure_arc"]["config"] |= {"resources": {"instance_type": "gpu-a100", "instance_count": 2}}
    imported = convert(config)
    assert imported.executions == {"PHI3_EXECUTION": "azure_arc"}
    assert imported.unknown == []
    taken = {name: imported.settings[name] for name in ("compute", "instance_type", "instance_count")}
    assert taken == {"compute": "edge", "instance_type": "gpu-a100", "instance_count": 2}
    assert "hf_token_secret" not in imported.settings  # only aml asks for it


def test_a_pass_with_a_host_of_its_own_is_an_asset_that_runs_elsewhere(config: dict[str, Any]) -> None:
    config["systems"]["here"] = {"type": "LocalSystem"}
    config["passes"]["builder"]["host"] = "here"
    imported = convert(config)
    assert imported.executions == {"PHI3_EXECUTION": "azureml", "PHI3_EXECUTION_ONNX_INT4_MODEL": "local"}
    assert imported.unknown == []


@pytest.mark.parametrize("path", [LORA, QLORA])
def test_the_cookbook_s_placeholders_are_to_be_filled_in_and_never_values(path: Path, tmp_path: Path) -> None:
    imported = import_config(path)
    assert set(imported.blanks) == {"subscription_id", "resource_group", "workspace", "compute", "key_vault"}
    assert not set(imported.blanks) & set(imported.settings)
    assert imported.values["dataset_path"] == FOLDER
    assert "set recipe field dataset_path" in imported.missing["dataset_path"]
    assert "set recipe field dataset_path" in line(imported, "relative_path")[1]
    written = tmp_path / "azure.yaml"
    written.write_text(settings_yaml(imported.settings, imported.blanks, "phi3 run"))
    assert 'workspace: ""  # fill in: Your Azure ML Worksapce\n' in written.read_text()
    assert load_settings({"PHI3_AZURE_CONFIG": str(written)}).workspace == ""


@pytest.mark.parametrize(
    ("more", "address", "why"),
    [
        ({}, "azureml://datastores/workspaceblobstore/paths/desk/", "other files of data beside train_data.json"),
        ({"relative_path": "desk/2026"}, "azureml://datastores/workspaceblobstore/paths/desk/2026/", "dataset_path"),
        ({"relative_path": "all.json"}, None, "all.json lies in the datastore's root; put it into a folder"),
        ({"datastore_url": "azureml://datastores/d/paths/a/b.json"}, "azureml://datastores/d/paths/a/", "b.json"),
        (
            {"azureml_client": {"subscription_id": "other", "resource_group": "rg", "workspace_name": "ws"}},
            "azureml://subscriptions/other/resourcegroups/rg/workspaces/ws/datastores/workspaceblobstore/paths/desk/",
            "",
        ),
    ],
)
def test_data_on_a_datastore_is_an_address(
    config: dict[str, Any], more: dict[str, Any], address: str | None, why: str
) -> None:
    if "datastore_url" in more:
        del block(config)["relative_path"]
    block(config).update(more)
    imported = convert(config)
    assert imported.values["dataset_path"] == (address or FOLDER)
    assert why in line(imported, "datastore_url" if "datastore_url" in more else "relative_path")[1]


def test_a_second_folder_of_data_is_told(config: dict[str, Any]) -> None:
    second = copy.deepcopy(config["data_configs"][0])
    config["data_configs"].append(second)
    second["load_dataset_config"]["params"]["data_files"]["config"]["relative_path"] = "held_out/eval.json"
    imported = convert(config)
    assert imported.values["dataset_path"].endswith("/desk/")
    verdict, why = line(imported, "data_configs.1.load_dataset_config.params.data_files.config.relative_path")
    assert verdict == "dropped"
    assert why.endswith("dataset_path: azureml://datastores/workspaceblobstore/paths/held_out/")


def test_an_environment_of_one_s_own_is_one_setting(config: dict[str, Any]) -> None:
    config["systems"]["aml"]["config"]["aml_environment_config"] = {"name": "mine", "version": "3"}
    imported = convert(config)
    assert imported.settings["environment"] == "azureml:mine:3"
    assert imported.unknown == []


HUB_TOKEN = "hf_" + "canary7Yc1qZ0secretxx"


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ("aml", "hf_token", HUB_TOKEN),
        ("azureml_client", "client_secret", "9vX~canary"),
        ("data", "datastore_url", "https://acct.blob.core.windows.net/c/d/t.json?sv=1&sig=canary%2B/x"),
        ("data", "account_key", "canary=="),
        ("model", "model_name", f"https://user:{HUB_TOKEN}@huggingface.co/owner/name"),
    ],
)
def test_a_secret_is_dropped_and_told(config: dict[str, Any], where: str, key: str, value: str) -> None:
    places = {
        "aml": config["systems"]["aml"]["config"],
        "azureml_client": config["azureml_client"],
        "data": block(config),
        "model": config["input_model"]["config"]["hf_config"],
    }
    places[where][key] = value
    imported = convert(config)
    verdict, why = line(imported, f".{key}")
    assert verdict == "dropped"
    assert "it holds a secret" in why
    written = imported.recipe_yaml("x") + settings_yaml(imported.settings, imported.blanks, "x")
    assert "canary" not in written + imported.report_markdown()


@pytest.mark.parametrize(("key", "value"), [("instance_count", 0), ("resources", {"shm_size": "8 GB"})])
def test_a_value_that_the_setting_does_not_take_is_told_now_and_not_by_the_first_run(
    config: dict[str, Any], key: str, value: Any
) -> None:
    config["systems"]["aml"]["config"][key] = value
    imported = convert(config)
    (unknown,) = imported.unknown
    assert "of Azure does not take this value: " in unknown.why
    assert not {"instance_count", "shm_size"} & imported.settings.keys()


def test_an_unknown_key_of_a_system_is_not_swallowed(config: dict[str, Any]) -> None:
    """`systems.*.*` took everything: a misspelt instance_count was said to belong elsewhere, and was gone."""
    config["systems"]["aml"]["config"]["instance_cuont"] = 4
    (unknown,) = convert(config).unknown
    assert "Did you mean 'systems.*.instance_count'" in unknown.why
