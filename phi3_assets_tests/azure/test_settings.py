"""Where steps run in Azure, from environment and file."""

import pytest

from phi3_assets.azure.secrets import vault_url
from phi3_assets.azure.settings import load_settings
from phi3_assets.core.errors import UserError

FIVE = {
    "PHI3_AZURE_SUBSCRIPTION_ID": "0f0f",
    "PHI3_AZURE_RESOURCE_GROUP": "models",
    "PHI3_AZURE_WORKSPACE": "desk",
    "PHI3_AZURE_COMPUTE": "gpu",
}


def test_the_environment_is_enough(tmp_path):
    settings = load_settings({**FIVE, "PHI3_HOME": str(tmp_path), "PHI3_AZURE_INSTANCE_COUNT": "2"}).require()
    assert (settings.compute, settings.instance_count, settings.datastore) == ("gpu", 2, "workspaceblobstore")
    assert settings.scope.endswith("/resourceGroups/models/providers/Microsoft.MachineLearningServices/workspaces/desk")
    assert settings.uri("a/b") == "azureml://datastores/workspaceblobstore/paths/phi3-assets/a/b/"


def test_a_file_of_variables_may_have_been_written_on_windows(tmp_path):
    settings = load_settings({**{name: f"{value}\r" for name, value in FIVE.items()}, "PHI3_HOME": str(tmp_path)})
    assert (settings.workspace, settings.compute) == ("desk", "gpu")
    assert load_settings({"PHI3_HOME": str(tmp_path), "PHI3_AZURE_PREFIX": " desk/x\r"}).prefix == "desk/x"


@pytest.mark.parametrize("given", ["desk", "desk.vault.azure.net", "https://desk.vault.azure.net/"])
def test_a_key_vault_is_known_by_what_the_portal_shows_of_it(given):
    assert vault_url(given) == "https://desk.vault.azure.net"


def test_the_homes_file_is_read_and_the_environment_wins(tmp_path):
    (tmp_path / "setup").mkdir()
    (tmp_path / "setup" / "azure.yaml").write_text("workspace: of-the-file\ncompute: of-the-file\n")
    settings = load_settings({"PHI3_HOME": str(tmp_path), "PHI3_AZURE_COMPUTE": "of-the-environment"})
    assert (settings.workspace, settings.compute) == ("of-the-file", "of-the-environment")
    assert load_settings({"PHI3_HOME": str(tmp_path)}, {"compute": "of-the-run"}).compute == "of-the-run"


def test_a_named_file_must_be_there(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        load_settings({"PHI3_AZURE_CONFIG": str(tmp_path / "none.yaml")})


@pytest.mark.parametrize(
    ("env", "told"),
    [
        ({"PHI3_AZURE_WORKSPAC": "x"}, "PHI3_AZURE_WORKSPAC is no setting. Did you mean 'PHI3_AZURE_WORKSPACE'"),
        ({"PHI3_AZURE_INSTANCE_COUNT": "none"}, "PHI3_AZURE_INSTANCE_COUNT: "),
        ({"PHI3_AZURE_TIER": "cheap"}, "PHI3_AZURE_TIER: .*'low_priority'"),
    ],
)
def test_a_wrong_setting_is_named_as_it_was_given(tmp_path, env, told):
    with pytest.raises(UserError, match=told):
        load_settings({"PHI3_HOME": str(tmp_path), **env})


def test_a_token_in_the_place_of_its_secrets_name_is_refused_and_not_repeated(tmp_path):
    with pytest.raises(UserError, match="PHI3_AZURE_HF_TOKEN_SECRET: not the name of a secret") as refused:
        load_settings({"PHI3_HOME": str(tmp_path), "PHI3_AZURE_HF_TOKEN_SECRET": "hf_canary7Yc1qZ0"})
    assert "canary" not in str(refused.value)


def test_a_wrong_key_of_the_file_is_named_with_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("computee: gpu\n")
    with pytest.raises(UserError, match=r"mine\.yaml: 'computee' is no setting of Azure\. Did you mean 'compute'"):
        load_settings({"PHI3_AZURE_CONFIG": str(path)})


def test_what_is_missing_is_said_with_the_way_to_find_it(tmp_path):
    settings = load_settings({"PHI3_HOME": str(tmp_path), "PHI3_AZURE_WORKSPACE": "desk"})
    with pytest.raises(UserError, match="Set PHI3_AZURE_SUBSCRIPTION_ID, PHI3_AZURE_RESOURCE_GROUP.*az ml workspace"):
        settings.require()
