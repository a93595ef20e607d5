"""Which store the environment names."""

import pytest

from phi3_assets.cli.results import store_of
from phi3_assets.core.errors import UserError
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.local_store import LocalArtifactStore


@pytest.mark.parametrize(
    ("env", "kind"),
    [
        ({}, LocalArtifactStore),
        ({"PHI3_EXECUTION": "local"}, LocalArtifactStore),
        ({"PHI3_EXECUTION": "azureml"}, BlobArtifactStore),
        ({"PHI3_EXECUTION": "azure_arc"}, BlobArtifactStore),
        ({"PHI3_EXECUTION": "azureml", "PHI3_STORE": "local"}, LocalArtifactStore),
        ({"PHI3_STORE": "azure_blob"}, BlobArtifactStore),
    ],
)
def test_the_store_follows_the_execution_unless_it_is_named(env, kind, monkeypatch, home):
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    store = store_of(home)
    assert type(store) is kind
    assert store.home_path == home


def test_an_unknown_store_is_refused_with_the_choices(monkeypatch):
    monkeypatch.setenv("PHI3_STORE", "azure-blob")
    with pytest.raises(UserError, match=r"PHI3_STORE='azure-blob': choose one of local, azure_blob\. Did you mean"):
        store_of(None)
