"""An execution on the stand-in and its store, in this process; the clients are made by the first test that asks."""

import pytest

from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.blob_store import BlobArtifactStore


@pytest.fixture
def execution(azure, monkeypatch):
    """One that looks often, in this process's Azure."""
    azure.apply(monkeypatch)
    return AzureMLExecution(poll_s=0.3, observe_every_s=0.1)


@pytest.fixture
def store(home, execution):
    """A store there, with a home of a few rows."""
    return BlobArtifactStore(home=str(home))
