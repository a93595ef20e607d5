"""What a workspace tells of a job that its control plane does not: why it failed, and its log."""

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from phi3_assets.azure.clients import TIMEOUTS, Clients, account_url_of, container_client
from phi3_assets.azure.errors import WORKSPACE_ROLE, readable, retried

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

LOGS = "workspaceartifactstore"
_SCOPE = "https://management.azure.com/.default"
# Of one process, of the first of several, and of the service while it prepares the node.
_LOG_NAMES = ("user_logs/std_log.txt", "user_logs/std_log_process_0.txt", "user_logs/std_log_process_00.txt")
_TAIL_BYTES = 64_000
_KILLED = re.compile(r"status code (137|-9)\b|OOMKilled")


def reasons(clients: Clients, name: str) -> list[str]:
    """What the service itself says of a job: its error, why it was cancelled, its warnings, each a sentence."""
    run = _run_data(clients, name)
    said = []
    error = (run.get("error") or {}).get("error") or {}
    if error.get("message"):
        said.append(f"{error.get('code', 'Error')}: {error['message']}")
    if run.get("cancelationReason"):
        said.append(f"Cancelled: {run['cancelationReason']}")
    warnings = [one for one in run.get("warnings") or [] if one.get("message")]
    said += [f"{one.get('source') or 'Warning'}: {one['message']}" for one in warnings]
    return list(dict.fromkeys(" ".join(line.split()) for line in said))


def was_killed(said: Iterable[str]) -> bool:
    """Whether `reasons` say that the job's process was ended by SIGKILL, as by a kernel or a pod out of memory."""
    return any(_KILLED.search(line) for line in said)


def log_of(clients: Clients, name: str) -> str:
    """The end of what the job printed; "" when there is nothing yet."""
    from azure.core.exceptions import ResourceNotFoundError

    with readable(f"Log of job {name}"):
        store = retried(lambda: clients.ml.datastores.get(LOGS))
        # The workspace's own account, which need not be the one that artefacts are kept in.
        container = container_client(account_url_of(store), store.container_name, clients.credential)
        for log in _LOG_NAMES:
            blob = container.get_blob_client(f"ExperimentRun/dcid.{name}/{log}")
            try:
                return _end_of(blob).decode(errors="replace")
            except ResourceNotFoundError:
                continue
    return ""


def _end_of(blob: "BlobClient") -> bytes:
    size = retried(blob.get_blob_properties).size
    start = max(0, size - _TAIL_BYTES)
    return retried(lambda: blob.download_blob(offset=start, length=size - start).readall()) if size else b""


def _run_data(clients: Clients, name: str) -> dict[str, Any]:
    from azure.core import PipelineClient
    from azure.core.pipeline import policies
    from azure.core.rest import HttpRequest

    with readable(f"History of job {name}", WORKSPACE_ROLE):
        discovery = clients.about.discovery_url
        tokens = policies.BearerTokenCredentialPolicy(clients.credential, _SCOPE)
        pipeline = [policies.RetryPolicy(), tokens]
        with PipelineClient("", policies=pipeline, **TIMEOUTS) as client:

            def ask(request: HttpRequest) -> dict[str, Any]:
                answer = client.send_request(request)
                answer.raise_for_status()
                return dict(json.loads(answer.text()))

            api = retried(lambda: ask(HttpRequest("GET", discovery)))["api"]
            address = f"{api}/history/v1.0{clients.settings.scope}/rundata"
            wanted = {"runId": name, "selectRunMetadata": True}
            run: dict[str, Any] = retried(lambda: ask(HttpRequest("POST", address, json=wanted)))["runMetadata"]
            return run
