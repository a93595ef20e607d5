"""The questions of `phi3 azure check`: what each asks of a workspace, and what its answer means."""

import base64
import importlib.util
import json
import os
import uuid
from functools import cached_property
from typing import Any

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.environment import ENVIRONMENT, conda_file, version_of
from phi3_assets.azure.errors import readable, status_of
from phi3_assets.azure.secrets import read_secret
from phi3_assets.azure.settings import PREFIX, load_settings
from phi3_assets.core.errors import UserError
from phi3_assets.resources import azureml_setup as setup
from phi3_assets.resources.azureml_job import SERVERLESS
from phi3_assets.resources.azureml_quota import check_quota
from phi3_assets.resources.chosen_execution import AZURE_ARC, AZUREML, VARIABLE, chosen
from phi3_assets.resources.stores import make_store

_PACKAGES = ("adlfs", "azure.ai.ml", "azure.identity", "azure.keyvault.secrets", "azure.storage.blob", "dagster_azure")
_SCOPE = "https://management.azure.com/.default"
# The five values, and how to find each.
FIVE = {
    VARIABLE: f"{AZUREML} for a compute cluster or serverless, {AZURE_ARC} for an attached Kubernetes cluster",
    f"{PREFIX}SUBSCRIPTION_ID": "`az account show --query id --output tsv`",
    f"{PREFIX}RESOURCE_GROUP": '`az group list --query "[].name" --output tsv`',
    f"{PREFIX}WORKSPACE": '`az ml workspace list --resource-group ... --query "[].name" --output tsv`',
    f"{PREFIX}COMPUTE": "`az ml compute list --resource-group ... --workspace-name ... --output table`, or "
    f"{SERVERLESS!r} for none of your own",
}


class NotAskedError(Exception):
    """A question that has no point with these settings, or was not wanted; its text says why."""


class Questions:
    """Each returns what it found.

    Attributes:
        more: Lines that belong below the answer to the last one, if it is wrong.

    Raises:
        UserError, TransientError: It is wrong.
        NotAskedError: There is nothing to ask.
    """

    def __init__(self, write: bool, create_environment: bool) -> None:
        """Nothing is asked yet; see `check_azure`."""
        self._write = write
        self._create_environment = create_environment
        self.more: tuple[str, ...] = ()

    @cached_property
    def _clients(self) -> Clients:
        return Clients(load_settings())

    @property
    def _on_a_cluster(self) -> bool:
        return self._clients.settings.compute != SERVERLESS

    @cached_property
    def _executions(self) -> set[str]:
        """Of Azure, those that any step runs on; a cluster where none does yet."""
        return set(chosen(os.environ).values()) & {AZUREML, AZURE_ARC} or {AZUREML}

    def packages(self) -> str:
        """Whether the extra `azure` is installed."""
        missing = [name for name in _PACKAGES if not _is_installed(name)]
        if missing:
            raise UserError(f"not installed: {', '.join(missing)}. Get them with `pip install 'phi3-assets[azure]'`.")
        return "what Azure needs is installed"

    def settings(self) -> str:
        """Whether all is set that everything needs, and fits together; `more` names the five values."""
        places = set(chosen(os.environ).values())
        settings = load_settings()
        names = {f"{PREFIX}{name.upper()}": value for name, value in settings.model_dump().items()}
        missing = [name for name in FIVE if name != VARIABLE and not names[name]]
        if missing:
            self.more = tuple(f"{name}: {how}" for name, how in FIVE.items())
            raise UserError(
                f"missing: {', '.join(missing)}. Set them in the environment or in a YAML file that {PREFIX}CONFIG "
                "names. The five values that everything needs:"
            )
        if places & {AZUREML, AZURE_ARC} and not make_store().elsewhere:
            raise UserError(
                "PHI3_STORE=local, but a job reads and writes artefacts of a store in Azure. Unset PHI3_STORE, or set "
                "it to azure_blob."
            )
        if not places & {AZUREML, AZURE_ARC}:
            return f"complete; nothing runs in Azure until {VARIABLE} is {AZUREML} or {AZURE_ARC}"
        return f"complete; steps run on {', '.join(sorted(places))}"

    def credential(self) -> str:
        """Who this process is."""
        with readable("Credential"):
            token = self._clients.credential.get_token(_SCOPE).token
        return f"logged in as {_who(token)}"

    def workspace(self) -> str:
        """Whether the workspace is there."""
        about = self._clients.about
        return f"{about.name} in {about.location}"

    def compute(self) -> str:
        """Whether the compute is there, and is what steps are to run on."""
        if len(self._executions) > 1:
            raise UserError(
                f"Steps are to run on {AZUREML} and on {AZURE_ARC}, and PHI3_AZURE_COMPUTE is one compute. Choose "
                f"one of them for all assets ({VARIABLE})."
            )
        return setup.check_compute(self._clients, arc=AZURE_ARC in self._executions)

    def identity(self) -> str:
        """Who a job is."""
        settings = self._clients.settings
        if settings.identity == "user":
            return "jobs act as whoever submits them"
        if not self._on_a_cluster or AZURE_ARC in self._executions:
            raise NotAskedError("the service does not tell what a job may do there; see docs/azureml.md, Roles")
        identity = setup.read_compute(self._clients, arc=False).identity
        if identity is None:
            raise UserError(
                f"compute {settings.compute!r} has no managed identity, so its jobs could read nothing. `az ml compute "
                f"update --name {settings.compute} {settings.az} --identity-type SystemAssigned` gives it one; it "
                "needs the role Storage Blob Data Contributor on the storage account."
            )
        return f"jobs act as the compute's managed identity ({identity.type})"

    def quota(self) -> str:
        """Whether the subscription lets the cluster have as many nodes as a training asks for."""
        if not self._on_a_cluster or AZURE_ARC in self._executions:
            raise NotAskedError("only a compute cluster has a size to reckon with")
        try:
            found = check_quota(self._clients, setup.read_compute(self._clients, arc=False))
        except UserError as error:
            if refused(error):  # it is the subscription's, and a data scientist's role is one of the workspace
                raise NotAskedError("takes the right to read the subscription (role Reader)") from error
            raise
        if found is None:
            raise NotAskedError("the service names no quota for this size")
        return found

    def datastore(self) -> str:
        """Whether artefacts can be read."""
        container, settings = self._clients.container, self._clients.settings
        where = f"{settings.datastore}, container {container.container_name} of {self._clients.account_url}"
        with readable(f"Container {container.container_name}"):
            has_any = next(iter(container.list_blobs(f"{settings.prefix}/", results_per_page=1)), None) is not None
        return f"{where}, can be read; {settings.prefix}/ {'holds artefacts' if has_any else 'is empty'}"

    def writing(self) -> str:
        """Whether artefacts can be written."""
        if not self._write:
            raise NotAskedError("with --write a small blob is put into the datastore and removed")
        settings = self._clients.settings
        name = f"{settings.prefix}/check-{uuid.uuid4().hex}"
        with readable(f"Writing to datastore {settings.datastore}"):
            blob = self._clients.container.upload_blob(name, b"phi3 azure check")
            blob.delete_blob()
        return f"a blob was put into {settings.prefix}/ and removed"

    def secret(self) -> str:
        """Whether the hub's token can be read."""
        settings = self._clients.settings
        if not settings.hf_token_secret:
            raise NotAskedError("no hub token is needed (PHI3_AZURE_HF_TOKEN_SECRET is empty)")
        vault = setup.key_vault(self._clients)
        if not read_secret(vault, settings.hf_token_secret, self._clients.credential):
            raise UserError(f"secret {settings.hf_token_secret!r} of {vault} is empty.")
        return f"{settings.hf_token_secret} of {vault} can be read, by you; a job reads it as its own identity"

    def environment(self) -> str:
        """Whether the environment that jobs run in is there."""
        found = setup.find_environment(self._clients)
        if found is not None:
            return f"{found} is there"
        if self._create_environment:
            return f"{setup.make_environment(self._clients)} was made; the first job builds its image"
        version = version_of(self._clients.settings.base_image, conda_file())
        return f"{ENVIRONMENT}:{version} will be made with the first job, or now with --create-environment"


def refused(error: Exception) -> bool:
    """Whether somebody answered, and only said no: other questions may fare better."""
    return error.__cause__ is not None and status_of(error.__cause__) == 403


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of what it stands in
        return False


def _who(token: str) -> str:
    """Whom a token is for, as far as its text says it; the service alone defines that, so anything may be missing."""
    claims: dict[str, Any] = {}
    parts = token.split(".")
    if len(parts) == 3:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    name = claims.get("upn") or claims.get("unique_name")
    if name:
        return f"{name}, tenant {claims.get('tid')}"
    return f"application {claims['appid']}, tenant {claims.get('tid')}" if "appid" in claims else "somebody"
