"""Data in a folder of a datastore, against Azurite."""

import pytest

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.data.read.remote import list_remote, localise
from phi3_assets.ops.planning import from_json, to_json, user_files
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.steps import RAW_DATASET

pytestmark = pytest.mark.azure

SHORT = "azureml://datastores/workspaceblobstore/paths/teams/desk data/"
CSV = b"Question,Best Answer\nwhat?,this\n"


@pytest.fixture
def container(azure, monkeypatch):
    azure.apply(monkeypatch)
    container = Clients(load_settings()).container
    container.upload_blob("teams/desk data/a.csv", CSV)
    container.upload_blob("teams/desk data/sub/b.csv", CSV)
    container.upload_blob("teams/desk data/_temporary/c.csv", CSV)
    container.upload_blob("teams/desk data 2/d.csv", CSV)
    return container


def long_form(address: str) -> str:
    settings = load_settings()
    below = f"resourcegroups/{settings.resource_group}/workspaces/{settings.workspace}"
    return address.replace("://", f"://subscriptions/{settings.subscription_id}/{below}/")


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.csv"))


@pytest.mark.parametrize("form", [str, long_form])
def test_a_folder_is_followed(container, azure, tmp_path, form):
    address = form(SHORT)
    folder = localise(address, tmp_path)
    assert files(folder) == ["a.csv", "sub/b.csv"] == sorted(list_remote(address))
    azure.clear()
    assert localise(address, tmp_path) == folder
    assert azure.traffic("GET", "blob", ".csv") == []
    container.upload_blob("teams/desk data/a.csv", CSV.replace(b"this", b"that"), overwrite=True)
    container.delete_blob("teams/desk data/sub/b.csv")
    localise(address, tmp_path)
    assert files(folder) == ["a.csv"]
    assert b"that" in (folder / "a.csv").read_bytes()


def test_the_long_form_is_of_the_workspace_it_names(container, azure, monkeypatch, tmp_path):
    address = long_form(SHORT)
    monkeypatch.setenv("PHI3_AZURE_WORKSPACE", "another")
    assert files(localise(address, tmp_path)) == ["a.csv", "sub/b.csv"]


def test_a_plan_says_where_a_job_can_read_it_itself(container, home):
    recipe = load_recipe("tiny-test", {"dataset_path": SHORT})
    store = LocalArtifactStore(home=str(home))
    found = user_files(print, RAW_DATASET, recipe, store)["datasets"]
    assert found.remote == SHORT
    assert from_json(to_json(found)) == found
    assert user_files(print, RAW_DATASET, load_recipe("tiny-test"), store)["datasets"].remote == ""


def test_a_file_that_changes_while_it_is_read_is_not_taken(container, azure, tmp_path):
    azure.fault(method="GET", host="blob", path="a.csv", status=412, code="ConditionNotMet")
    with pytest.raises(TransientError, match=r"a\.csv was changed while it was read"):
        localise(SHORT, tmp_path)


def test_what_tools_put_there_for_a_folder_is_no_file(container, tmp_path):
    for name in ("teams/desk data/", "teams/desk data/sub/"):
        container.upload_blob(name, b"")
    assert files(localise(SHORT, tmp_path)) == ["a.csv", "sub/b.csv"]


def test_a_name_that_no_folder_can_have_is_refused_and_not_left_out(container, tmp_path):
    container.upload_blob("teams/desk data//c.csv", CSV)
    with pytest.raises(UserError, match=r"'/c\.csv' .* rename it"):
        localise(SHORT, tmp_path)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("azureml://datastores/workspaceblobstore", "must be 'azureml://datastores/<datastore>/paths/<folder>'"),
        ("azureml://datastores/no-such/paths/x", "Datastore no-such of workspace"),
        ("azureml://datastores/workspaceblobstore/paths/no/such", "does not exist or holds no file"),
    ],
)
def test_what_cannot_be_reached_says_why(container, address, said, tmp_path):
    with pytest.raises(UserError, match=said):
        localise(address, tmp_path)


def test_no_access_names_the_role_for_readers(container, azure, tmp_path):
    azure.fault(method="GET", host="blob", times=-1, status=403, code="AuthorizationPermissionMismatch")
    with pytest.raises(UserError, match="Storage Blob Data Reader"):
        localise(SHORT, tmp_path)
