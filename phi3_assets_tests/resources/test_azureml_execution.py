"""Steps as command jobs, through unmodified clients, against Azurite and the stand-in."""

import pytest

from phi3_assets.azure.blobs import remove_folder
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
    def forget(self, store, ref):
        remove_folder(store.container, f"phi3-assets/artefacts/{ref.kind}/{ref.identity}")

    def break_file(self, store, ref, path):
        blob = store.container.get_blob_client(f"phi3-assets/{store.attempt_path(ref)}/{path}")
        data = bytearray(blob.download_blob().readall())
        data[-1] ^= 1
        blob.upload_blob(bytes(data), overwrite=True)
