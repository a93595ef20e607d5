"""The door: what it lets through, what it refuses, and the faults it makes on order."""

import time

import pytest
import requests
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets_tests.azure_standin.submitting import submit

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


@pytest.fixture
def container(clients):
    """The container, through a client that tries again at once."""
    from azure.storage.blob import BlobServiceClient, ExponentialRetry

    quick = ExponentialRetry(initial_backoff=0, increment_base=0)
    service = BlobServiceClient(clients.account_url, credential=clients.credential, retry_policy=quick)
    return service.get_container_client(clients.container.container_name)


@pytest.mark.parametrize("kind", [{"status": 503}, {"kind": "reset"}, {"kind": "lost"}])
def test_a_fault_of_an_upload_strikes_once(azure, container, kind):
    azure.fault(method="PUT", host="blob", path="/a.txt", **kind)
    container.upload_blob("a.txt", b"x" * 300_000, overwrite=True)
    assert container.download_blob("a.txt").readall() == b"x" * 300_000
    puts = azure.traffic("PUT", "blob", "/a.txt")
    assert [put["fault"] for put in puts] == [kind.get("kind", "answer"), ""]


def test_a_download_is_cut_in_the_middle(azure, container):
    container.upload_blob("a.txt", b"x" * 300_000)
    azure.fault(method="GET", host="blob", path="/a.txt", kind="cut", bytes=100_000)
    assert container.download_blob("a.txt").readall() == b"x" * 300_000
    assert [get["fault"] for get in azure.traffic("GET", "blob", "/a.txt")] == ["cut", ""]


def test_a_stall_is_late_and_right(azure, container):
    azure.fault(host="blob", kind="stall", seconds=1)
    began = time.monotonic()
    container.upload_blob("a.txt", b"x")
    assert time.monotonic() - began > 1
    assert container.download_blob("a.txt").readall() == b"x"


def test_the_control_plane_may_be_cut_too(azure, clients):
    azure.fault(method="GET", path="/datastores/", kind="cut")
    assert clients.datastore.name == "workspaceblobstore"


def test_no_permission_and_no_quota_are_said_at_once(azure, clients):
    azure.fault(path="/computes/", kind="forbidden")
    with pytest.raises(HttpResponseError, match="workspaces/computes/read' over scope") as refused:
        clients.ml.compute.get("cpu-cluster")
    assert (refused.value.status_code, refused.value.error.code) == (403, "AuthorizationFailed")
    azure.fault(method="PUT", path="/jobs/", kind="quota")
    with pytest.raises(HttpResponseError, match="JobNodeCountExceedsCoreQuota"):
        submit(clients, "true")


def test_an_unknown_workspace_and_a_wrong_secret(azure, clients, monkeypatch):
    monkeypatch.setenv("PHI3_AZURE_WORKSPACE", "another")
    with pytest.raises(ResourceNotFoundError, match="another"):
        Clients(load_settings()).ml.workspaces.get("another")
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
        Clients(load_settings()).ml.workspaces.get("another")


def test_a_secret_that_is_not_there_or_not_for_us(azure, clients):
    from azure.keyvault.secrets import SecretClient

    vault = SecretClient("https://phi3standin.vault.azure.net", clients.credential)
    with pytest.raises(ResourceNotFoundError, match="hf-token"):
        vault.get_secret("hf-token")
    azure.fault(host="vault", path="/secrets/", status=403, code="Forbidden")
    with pytest.raises(HttpResponseError, match="Forbidden"):
        vault.get_secret("hf-token")


def test_tokens_expire_and_are_renewed(azure, clients):
    azure.token_lifetime(1)
    clients.container.upload_blob("a.txt", b"x")
    old = clients.credential.get_token("https://storage.azure.com/.default").token
    time.sleep(2)
    assert clients.container.download_blob("a.txt").readall() == b"x"
    url = f"{clients.account_url}/{clients.container.container_name}/a.txt"
    headers = {"Authorization": f"Bearer {old}", "x-ms-version": "2024-11-04"}
    assert requests.get(url, headers=headers, timeout=20).status_code == 403
    url = f"https://management.azure.com{clients.settings.scope}?api-version=2024-10-01-preview"
    answer = requests.get(url, headers=headers, timeout=20)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "ExpiredAuthenticationToken")


def test_no_token_and_no_secret_is_in_the_traffic(azure, clients):
    clients.container.upload_blob("a.txt", b"x")
    seen = str(azure.traffic())
    assert "eyJ" not in seen
    assert "standin-client-secret" not in seen
    assert "sig=" not in seen
