"""What must be right in a workspace before a job is submitted; each is asked once and found wrong in a sentence."""

import tempfile
from pathlib import Path
from typing import Any

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.environment import ENVIRONMENT, conda_file, version_of
from phi3_assets.azure.errors import WORKSPACE_ROLE, readable, retried
from phi3_assets.azure.package import build_wheel
from phi3_assets.azure.secrets import vault_url
from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import digest_of, fingerprint
from phi3_assets.resources.azureml_job import SERVERLESS
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.execution import UserFiles


def check_compute(clients: Clients, *, arc: bool) -> str:
    """Refuse a compute that is not there, or not what it is taken for.

    Args:
        clients: The workspace.
        arc: Whether a Kubernetes cluster is wanted.

    Returns:
        What it is, for people.

    Raises:
        UserError: Says what to set or to create.
    """
    name = clients.settings.compute
    if not name:
        raise UserError(
            f"No compute is named. Set PHI3_AZURE_COMPUTE; `az ml compute list {clients.settings.az} --output table` "
            + ("shows what there is." if arc else f"shows what there is, and {SERVERLESS!r} needs none of your own.")
        )
    if name == SERVERLESS:
        return _check_serverless(clients, arc=arc)
    compute = read_compute(clients, arc=arc)
    kind = str(compute.type).lower()
    if arc:
        if kind != "kubernetes":
            raise UserError(
                f"Compute {name!r} is {compute.type}, and azure_arc needs an attached Kubernetes cluster. "
                f"{_attach(clients)} For a compute cluster use azureml."
            )
        return _check_instance_type(clients, compute)
    if kind == "kubernetes":
        raise UserError(f"Compute {name!r} is a Kubernetes cluster: use azure_arc for it, which checks its instances.")
    if kind != "amlcompute":
        raise UserError(f"Compute {name!r} is {compute.type}, which runs no jobs of several steps. {_create(clients)}")
    return _check_cluster(clients, compute)


def read_compute(clients: Clients, *, arc: bool) -> Any:
    """The compute as the service knows it.

    Raises:
        UserError: There is none of this name; says how to make or attach one.
    """
    settings = clients.settings
    mend = _attach(clients) if arc else _create(clients)
    with readable(f"Compute {settings.compute} of workspace {settings.workspace}", WORKSPACE_ROLE, mend):
        return retried(lambda: clients.ml.compute.get(settings.compute))


def _create(clients: Clients) -> str:
    settings = clients.settings
    return (
        f"`az ml compute create --type amlcompute --name {settings.compute} {settings.az} --size Standard_NC4as_T4_v3 "
        "--min-instances 0 --max-instances 2 --identity-type SystemAssigned` makes one that costs nothing while it is "
        "idle."
    )


def _attach(clients: Clients) -> str:
    settings = clients.settings
    return (
        f"`az ml compute attach --type Kubernetes --name {settings.compute} {settings.az} --resource-id ... "
        "--identity-type SystemAssigned` attaches an Arc cluster."
    )


def _check_serverless(clients: Clients, *, arc: bool) -> str:
    settings = clients.settings
    if arc:
        raise UserError(f"PHI3_AZURE_COMPUTE={SERVERLESS}: azure_arc needs the name of an attached Kubernetes cluster.")
    if settings.tier == "low_priority":
        raise UserError("PHI3_AZURE_TIER=low_priority: with serverless it is called spot.")
    return f"serverless, {settings.instance_type or 'a size that the service chooses'}"


def _check_instance_type(clients: Clients, compute: Any) -> str:
    wanted = clients.settings.instance_type
    instances = (compute.properties or {}).get("instanceTypes") or {}
    known = sorted(instances)
    listed = f" It has {', '.join(known)}." if known else ""
    if not wanted:
        raise UserError(
            f"PHI3_AZURE_INSTANCE_TYPE is not set. Kubernetes cluster {compute.name!r} would take its default instance "
            f"type, which has a tenth of a CPU and no GPU.{listed}"
        )
    if known and wanted not in known:
        raise UserError(
            f"PHI3_AZURE_INSTANCE_TYPE={wanted}: Kubernetes cluster {compute.name!r} has no such instance type.{listed}"
        )
    gpus = _gpus(instances.get(wanted))
    return f"Kubernetes cluster {compute.name}, instance type {wanted}, {gpus or 'no'} GPU{'s' if gpus > 1 else ''}"


def _gpus(instance_type: Any) -> int:
    """GPUs of an instance type; Kubernetes knows them as limits only."""
    limits = ((instance_type or {}).get("resources") or {}).get("limits") or {}
    return sum(int(count or 0) for name, count in limits.items() if name.endswith("/gpu"))


def _check_cluster(clients: Clients, compute: Any) -> str:
    settings = clients.settings
    if compute.provisioning_errors:
        raise UserError(
            f"Compute {compute.name!r} could not be set up: {compute.provisioning_errors}. If that is a quota, "
            f"`az ml compute list-usage {settings.az} --output table` shows it, and the portal (Quotas, Azure Machine "
            "Learning) takes requests."
        )
    tier = str(compute.tier or "dedicated").lower().replace("lowpriority", "low_priority")
    if settings.tier == "spot":
        raise UserError("PHI3_AZURE_TIER=spot is for serverless; a compute cluster is dedicated or low_priority.")
    if settings.tier and settings.tier != tier:
        raise UserError(
            f"PHI3_AZURE_TIER={settings.tier}, but compute {compute.name!r} is {tier}: a cluster's tier is chosen "
            "when it is created. Name another one."
        )
    most = compute.max_instances
    if most is not None and settings.instance_count > most:
        raise UserError(
            f"PHI3_AZURE_INSTANCE_COUNT={settings.instance_count}, but compute {compute.name!r} has at most {most} "
            f"nodes. `az ml compute update --name {compute.name} {settings.az} --max-instances "
            f"{settings.instance_count}` raises it."
        )
    if settings.instance_type and settings.instance_type.lower() != str(compute.size).lower():
        raise UserError(
            f"PHI3_AZURE_INSTANCE_TYPE={settings.instance_type}, but the nodes of compute {compute.name!r} are "
            f"{compute.size}. Leave it unset with a compute cluster."
        )
    return f"compute cluster {compute.name}, {compute.size}, {tier}, up to {most} nodes"


def find_environment(clients: Clients) -> str | None:
    """Reference to the environment that jobs run in; None if it is ours and has not been made yet."""
    from azure.core.exceptions import ResourceNotFoundError

    own = clients.settings.environment
    if own:
        name, _, version = own.removeprefix("azureml:").partition(":")
        if own.startswith("azureml://"):
            return own
        if not version:
            raise UserError(f"PHI3_AZURE_ENVIRONMENT={own}: give name and version, as in azureml:name:version.")
        mend = f"`az ml environment list {clients.settings.az} --output table` shows what there is."
        with readable(f"Environment {own}", WORKSPACE_ROLE, mend):
            retried(lambda: clients.ml.environments.get(name, version))
        return f"azureml:{name}:{version}"
    version = version_of(clients.settings.base_image, conda_file())
    with readable(f"Environment {ENVIRONMENT}:{version}", WORKSPACE_ROLE):
        try:
            retried(lambda: clients.ml.environments.get(ENVIRONMENT, version))
        except ResourceNotFoundError:
            return None
    return f"azureml:{ENVIRONMENT}:{version}"


def make_environment(clients: Clients) -> str:
    """Create our environment; the service builds its image when the first job needs it. Returns its reference."""
    from azure.ai.ml.entities import Environment
    from azure.core.exceptions import AzureError

    image, conda = clients.settings.base_image, conda_file()
    environment = Environment(
        name=ENVIRONMENT,
        version=version_of(image, conda),
        image=image,
        conda_file=conda,
        description="Made by phi3-assets from the versions installed where Dagster runs.",
    )
    try:
        retried(lambda: clients.ml.environments.create_or_update(environment))
    except AzureError:
        # Another run may have made it meanwhile, or the answer was lost.
        found = find_environment(clients)
        if found is None:
            with readable(f"Environment {environment.name}:{environment.version}", WORKSPACE_ROLE):
                raise
    return f"azureml:{environment.name}:{environment.version}"


def put_package(store: BlobArtifactStore) -> str:
    """Put our wheel into the store, once per content; returns its folder's path below the prefix.

    Not as the code of the job: the client would upload that anew for each one.
    """
    with tempfile.TemporaryDirectory(prefix="phi3-package-") as name:
        folder = Path(name)
        build_wheel(folder)
        return store.put_user_files("package", UserFiles(folder, digest_of(fingerprint(folder, "Package"))))


def key_vault(clients: Clients) -> str:
    """URL of the key vault with the hub's token."""
    if clients.settings.key_vault:
        return vault_url(clients.settings.key_vault)
    return vault_url(str(clients.about.key_vault).rstrip("/").rpartition("/")[2])
