"""Microsoft's clients, made when they are needed, and as they are: no base addresses of our own, no hooks.

Storage is reached with tokens only, so accounts may forbid shared keys. Telemetry of azure-ai-ml is off.
"""

import logging
import os
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from phi3_assets.azure.errors import WORKSPACE_ROLE, readable, retried
from phi3_assets.azure.settings import AzureSettings
from phi3_assets.core.errors import UserError

if TYPE_CHECKING:
    from azure.ai.ml import MLClient
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import ContainerClient


TIMEOUTS = {"connection_timeout": 20, "read_timeout": 60}
"""Seconds, for all clients. Their own are five minutes: a service that stalls is one to be asked again."""


def make_credential() -> "TokenCredential":
    """Who this process is: environment, workload identity, managed identity, then whoever is logged in with `az`."""
    from azure.identity import DefaultAzureCredential

    return DefaultAzureCredential(**TIMEOUTS)


def job_credential(client_id: str) -> "TokenCredential":
    """Who a job is: the managed identity of its compute; `client_id` tells which, where there are several.

    Not `DefaultAzureCredential`, which would try what does not exist there first.
    """
    from azure.identity import ManagedIdentityCredential

    chosen = client_id or os.environ.get("DEFAULT_IDENTITY_CLIENT_ID", "")
    return ManagedIdentityCredential(client_id=chosen or None, **TIMEOUTS)


def container_client(account_url: str, container: str, credential: "TokenCredential") -> "ContainerClient":
    """A container of blobs. Its own retries: five, exponential, on timeouts, 408, 429 and 5xx."""
    from azure.storage.blob import BlobServiceClient, ExponentialRetry

    service = BlobServiceClient(
        account_url,
        credential=credential,
        retry_policy=ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=5, random_jitter_range=1),
        **TIMEOUTS,
    )
    return service.get_container_client(container)


def account_url_of(datastore: Any) -> str:
    """Address of the storage account of a datastore of blobs, as azure-ai-ml describes it."""
    endpoint = datastore.endpoint or "core.windows.net"
    return f"{datastore.protocol or 'https'}://{datastore.account_name}.blob.{endpoint}"


@lru_cache(maxsize=4)
def clients_of(settings: AzureSettings) -> "Clients":
    """The clients of one workspace, kept, so that tokens and connections are used again."""
    return Clients(settings)


class Clients:
    """The clients of one workspace, made on first use."""

    def __init__(self, settings: AzureSettings) -> None:
        """Nothing is imported or asked yet."""
        self.settings = settings.require()

    @cached_property
    def credential(self) -> "TokenCredential":
        """See `make_credential`."""
        return make_credential()

    @cached_property
    def ml(self) -> "MLClient":
        """The workspace."""
        from azure.ai.ml import MLClient

        settings = self.settings
        # It remarks on each class of its own that is experimental, whoever uses it.
        logging.getLogger("azure.ai.ml._utils._experimental").setLevel(logging.ERROR)
        return MLClient(
            self.credential,
            settings.subscription_id,
            settings.resource_group,
            settings.workspace,
            enable_telemetry=False,
            show_progress=False,
            **TIMEOUTS,
        )

    @cached_property
    def about(self) -> Any:
        """The workspace as the service knows it: location, key_vault, discovery_url."""
        settings = self.settings
        what = f"Workspace {settings.workspace} of resource group {settings.resource_group}"
        mend = f"`az ml workspace list --resource-group {settings.resource_group} --output table` shows what there is."
        with readable(what, WORKSPACE_ROLE, mend):
            return retried(lambda: self.ml.workspaces.get(settings.workspace))

    @cached_property
    def datastore(self) -> Any:
        """The datastore that artefacts are kept in: account_name, container_name, endpoint, protocol."""
        from azure.core.exceptions import ResourceNotFoundError

        settings = self.settings
        mend = f"`az ml datastore list {settings.az} --output table` shows what there is."
        with readable(f"Datastore {settings.datastore} of workspace {settings.workspace}", WORKSPACE_ROLE, mend):
            try:
                store = retried(lambda: self.ml.datastores.get(settings.datastore))
            except ResourceNotFoundError:
                _ = self.about  # says so where it is the workspace that is not there
                raise
        if not hasattr(store, "container_name"):
            raise UserError(f"Datastore {settings.datastore!r} is {store.type}; artefacts are kept in Azure Blob.")
        return store

    @cached_property
    def account_url(self) -> str:
        """Address of the datastore's storage account."""
        return account_url_of(self.datastore)

    @cached_property
    def container(self) -> "ContainerClient":
        """The datastore's container."""
        return container_client(self.account_url, self.datastore.container_name, self.credential)
