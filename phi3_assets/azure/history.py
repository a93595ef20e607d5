"""What a workspace tells of a job that its control plane does not: why it failed, and its log."""

import json
from typing import Any

from phi3_assets.azure.clients import Clients, container_client
from phi3_assets.azure.errors import WORKSPACE_ROLE, readable, retried

LOGS = "workspaceartifactstore"
_SCOPE = "https://management.azure.com/.default"
# Of one process, of the first of several, and of the service while it prepares the node.
_LOG_NAMES = ("user_logs/std_log.txt", "user_logs/std_log_process_0.txt", "user_logs/std_log_process_00.txt")
_TAIL_BYTES = 64_000


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


def log_of(clients: Clients, name: str) -> str:
    """The end of what the job printed; "" when there is nothing yet."""
    from azure.core.exceptions import ResourceNotFoundError

    with readable(f"Log of job {name}"):
        store = clients.ml.datastores.get(LOGS)
        container = container_client(clients.account_url, store.container_name, clients.credential)
        for log in _LOG_NAMES:
            blob = container.get_blob_client(f"ExperimentRun/dcid.{name}/{log}")
            try:
                size = blob.get_blob_properties().size
            except ResourceNotFoundError:
                continue
            start = max(0, size - _TAIL_BYTES)
            content = blob.download_blob(offset=start, length=size - start).readall() if size else b""
            return content.decode(errors="replace")
    return ""


def _run_data(clients: Clients, name: str) -> dict[str, Any]:
    from azure.core import PipelineClient
    from azure.core.pipeline import policies
    from azure.core.rest import HttpRequest

    with readable(f"History of job {name}", WORKSPACE_ROLE):
        discovery = clients.about.discovery_url
        tokens = policies.BearerTokenCredentialPolicy(clients.credential, _SCOPE)
        pipeline = [policies.RetryPolicy(), tokens]
        with PipelineClient("", policies=pipeline) as client:
            found = retried(lambda: client.send_request(HttpRequest("GET", discovery)))
            found.raise_for_status()
            address = f"{found.json()['api']}/history/v1.0{clients.settings.scope}/rundata"
            answer = client.send_request(HttpRequest("POST", address, json={"runId": name, "selectRunMetadata": True}))
            answer.raise_for_status()
            run: dict[str, Any] = json.loads(answer.text())["runMetadata"]
            return run
