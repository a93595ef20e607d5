"""The door: what it lets through, what it refuses, and the faults it makes on order."""

import pytest
import requests

pytestmark = pytest.mark.azure


def test_another_host_is_refused_and_noted(tmp_path, azure_session, monkeypatch):
    azure_session.apply(monkeypatch)
    with pytest.raises(requests.exceptions.ProxyError, match="403"):
        requests.get("https://dc.services.visualstudio.com/v2/track", timeout=5)
    assert requests.get("http://example.com/", timeout=5).status_code == 403
    assert azure_session.forgive()["leaks"] == ["dc.services.visualstudio.com", "example.com"]


@pytest.mark.parametrize(
    "kind", [{"status": 429, "headers": {"Retry-After": "0"}}, {"kind": "html"}, {"kind": "reset"}, {"kind": "lost"}]
)
def test_a_fault_of_the_control_plane_strikes_once(azure, clients, kind):
    azure.fault(method="GET", host="management", path="/datastores/", **kind)
    assert clients.datastore.name == "workspaceblobstore"
    assert [fault["used"] for fault in azure.faults()] == [1]
    assert len(azure.traffic("GET", "management", "/datastores/workspaceblobstore")) == 2


@pytest.mark.parametrize("kind", [{"status": 503}, {"kind": "reset"}, {"kind": "lost"}])
def test_a_fault_of_the_storage_strikes_once(azure, clients, kind):
    from azure.storage.blob import BlobServiceClient, ExponentialRetry

    quick = ExponentialRetry(initial_backoff=0, increment_base=0)
    service = BlobServiceClient(clients.account_url, credential=clients.credential, retry_policy=quick)
    container = service.get_container_client(clients.container.container_name)
    azure.fault(method="PUT", host="blob", path="/a.txt", **kind)
    container.upload_blob("a.txt", b"x" * 300_000, overwrite=True)
    assert container.download_blob("a.txt").readall() == b"x" * 300_000
    puts = azure.traffic("PUT", "blob", "/a.txt")
    assert [put["fault"] for put in puts] == [kind.get("kind", "answer"), ""]


def test_no_token_and_no_secret_is_in_the_traffic(azure, clients):
    clients.container.upload_blob("a.txt", b"x")
    seen = str(azure.traffic())
    assert "eyJ" not in seen
    assert "standin-client-secret" not in seen
    assert "sig=" not in seen
