import pytest

pytestmark = pytest.mark.azure


def test_the_datastores_container_is_reached_by_unmodified_clients(azure, clients):
    clients.container.upload_blob("phi3-assets/a.txt", b"hello")
    assert [blob.name for blob in clients.container.list_blobs()] == ["phi3-assets/a.txt"]
    assert clients.container.download_blob("phi3-assets/a.txt").readall() == b"hello"
    put = azure.traffic("PUT", "blob.core.windows.net")
    assert [exchange["status"] for exchange in put] == [201]
