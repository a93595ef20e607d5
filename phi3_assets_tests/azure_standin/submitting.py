"""For the stand-in's own tests: jobs of one line of bash, and what they said."""

from typing import Any

from phi3_assets.azure.clients import Clients, container_client

ROOT = "azureml://datastores/workspaceblobstore/paths"


def submit(clients: Clients, text: str, **more: Any) -> str:
    """Submit `text` as a command job, by the unmodified client; the job's name."""
    from azure.ai.ml import command

    job = command(**{"command": text, "environment": "azureml:phi3:1", "compute": "cpu-cluster", **more})
    return str(clients.ml.jobs.create_or_update(job).name)


def log_of(clients: Clients, name: str, file: str = "std_log.txt") -> str:
    """A user log of a job, from the workspace's storage."""
    store = clients.ml.datastores.get("workspaceartifactstore")
    container = container_client(clients.account_url, store.container_name, clients.credential)
    return container.download_blob(f"ExperimentRun/dcid.{name}/user_logs/{file}").readall().decode()
