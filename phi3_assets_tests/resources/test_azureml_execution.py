"""Steps as command jobs, through unmodified clients, against Azurite and the stand-in."""

import pytest

from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets_tests.resources.execution_contract import ExecutionContract

pytestmark = pytest.mark.azure


@pytest.fixture
def execution(azure, monkeypatch):
    azure.apply(monkeypatch)
    return AzureMLExecution(poll_s=0.3, observe_every_s=0.1)


@pytest.fixture
def store(home, execution):
    return BlobArtifactStore(home=str(home))


class TestAzureMLExecution(ExecutionContract):
    pass
