"""The ledger in Azure Blob Storage, against Azurite."""

import pytest

from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets_tests.resources.ledger_contract import KEY, LedgerContract

pytestmark = pytest.mark.azure


@pytest.fixture
def ledger(azure, monkeypatch, home):
    azure.apply(monkeypatch)
    return BlobArtifactStore(home=str(home)).ledger


class TestBlobLedger(LedgerContract):
    """The contract, and what a network does."""

    def test_a_write_whose_answer_was_lost_is_no_conflict(self, ledger, azure):
        """azure-core asks again, and is told that somebody wrote meanwhile: it was ourselves."""
        first = ledger.write(KEY, b"one", None)
        azure.fault(method="PUT", host="blob", path="champion.json", kind="lost")
        second = ledger.write(KEY, b"two", first)
        assert [exchange["status"] for exchange in azure.traffic("PUT", "blob", "champion.json")] == [201, 0, 412]
        assert ledger.read(KEY).version == second

    def test_every_key_stands_below_the_prefix(self, ledger, azure):
        ledger.write(KEY, b"one", None)
        (put,) = azure.traffic("PUT", "blob", "champion.json")
        assert put["path"].endswith("/phi3-assets/ledger/products/desk/champion.json")
