"""The store in Azure Blob Storage, against Azurite."""

import shutil

import pytest

from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets_tests.resources.store_contract import StoreContract

pytestmark = pytest.mark.azure


@pytest.fixture
def store(azure, monkeypatch, home):
    azure.apply(monkeypatch)
    return BlobArtifactStore(home=str(home))


def blob_of(store, ref, path):
    return store.container.get_blob_client(f"{store.settings.prefix}/{store.attempt_path(ref)}/{path}")


class TestBlobStore(StoreContract):
    def break_file(self, store, ref):
        blob_of(store, ref, "sub/file.txt").upload_blob(b"c0ntent", overwrite=True)
        shutil.rmtree(store.directory(ref.kind, ref.identity))
