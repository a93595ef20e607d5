"""Where steps run in Azure: workspace, compute, datastore. Environment or YAML file; never a secret.

Every field is an environment variable, PHI3_AZURE_ and the field's name in capitals, or a key of the YAML file that
PHI3_AZURE_CONFIG names (else setup/azure.yaml of the home, if there is one). The environment wins.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.home import default_home
from phi3_assets.core.recipe_file import read_yaml

PREFIX = "PHI3_AZURE_"
CONFIG = "PHI3_AZURE_CONFIG"
_NAME = r"[A-Za-z0-9][\w.()-]*"
_REQUIRED = ("subscription_id", "resource_group", "workspace")
_IN_THE_VAULT = "hf_token_secret"


class AzureSettings(pydantic.BaseModel):
    """What a platform team fills in once. None of it is in any identity: where a step runs cannot change its result."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    subscription_id: str = pydantic.Field("", description="Azure subscription, as `az account show --query id` says.")
    resource_group: str = pydantic.Field("", description="Resource group of the workspace.")
    workspace: str = pydantic.Field("", description="Azure Machine Learning workspace.")
    compute: str = pydantic.Field(
        "",
        description="Compute cluster, or attached Kubernetes cluster (azure_arc), that steps run on; 'serverless': "
        "none of one's own.",
    )
    instance_type: str = pydantic.Field(
        "",
        description="With azure_arc the name of an InstanceType of the cluster, with serverless a VM size; a compute "
        "cluster has its own.",
    )
    instance_count: int = pydantic.Field(1, ge=1, description="Nodes that train together; other steps take one.")
    processes_per_node: int = pydantic.Field(
        1, ge=1, description="Processes that train together on each node, one per GPU."
    )
    tier: Literal["", "dedicated", "low_priority", "spot"] = pydantic.Field(
        "",
        description="What the nodes cost and whether they can be taken away: a property of a compute cluster, which is "
        "checked; spot is chosen per job with serverless. Empty: whatever the compute is.",
    )
    shm_size: str = pydantic.Field("2g", pattern=r"^\d+[bkmg]?$", description="Shared memory of a job's container.")
    queue_timeout_minutes: float = pydantic.Field(
        60, gt=0, description="A job that has not begun to run after this long is cancelled, and the step fails."
    )
    run_timeout_minutes: float = pydantic.Field(
        24 * 60, gt=0, description="A job is ended by the service after running this long."
    )
    base_image: str = pydantic.Field(
        "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04",
        description="Image that the environment is built on; for GPUs one with CUDA's libraries, such as "
        "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04.",
    )
    environment: str = pydantic.Field(
        "",
        description="An environment of your own (azureml:name:version) that has this package's requirements; empty: "
        "one is made of the versions installed where Dagster runs.",
    )
    datastore: str = pydantic.Field(
        "workspaceblobstore", pattern=rf"^{_NAME}$", description="Datastore of blobs that artefacts are kept in."
    )
    prefix: str = pydantic.Field(
        "phi3-assets",
        pattern=r"^[\w-][\w.-]*(/[\w-][\w.-]*)*$",
        description="Folder of the datastore that everything of this project stands below.",
    )
    key_vault: str = pydantic.Field(
        "", description="Name or URL of the key vault that holds the hub's token; empty: the workspace's own."
    )
    hf_token_secret: str = pydantic.Field(
        "",
        pattern=r"^[0-9a-zA-Z-]*$",
        description="Name of the secret in the key vault that is the Hugging Face token, read inside the job by its "
        "managed identity; empty: no token is needed.",
    )
    identity: Literal["managed", "user"] = pydantic.Field(
        "managed", description="Who a job is: the compute's managed identity, or the person who submits it."
    )
    client_id: str = pydantic.Field(
        "", description="Client id of the compute's user-assigned managed identity, if it has more than one identity."
    )
    poll_s: float = pydantic.Field(5, gt=0, description="Seconds between two looks at a running job.")
    grace_minutes: float = pydantic.Field(
        10, gt=0, description="How long a job may be unreachable, or take to be cancelled, before that is an error."
    )

    @property
    def scope(self) -> str:
        """ARM id of the workspace."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )

    @property
    def az(self) -> str:
        """Options of `az ml` that name the workspace."""
        return f"--resource-group {self.resource_group} --workspace-name {self.workspace}"

    def uri(self, path: str) -> str:
        """The address, for a job, of a folder of the datastore; `path` is below `prefix`."""
        return f"azureml://datastores/{self.datastore}/paths/{self.prefix}/{path.strip('/')}/"

    def require(self) -> "AzureSettings":
        """Itself, if it names a workspace.

        Raises:
            UserError: Says what is missing and how to find it.
        """
        missing = [name for name in _REQUIRED if not getattr(self, name)]
        if missing:
            variables = ", ".join(f"{PREFIX}{name.upper()}" for name in missing)
            raise UserError(
                f"Azure is not configured: {', '.join(missing)} missing. Set {variables}, or put them into a YAML file "
                f"that {CONFIG} names. `az ml workspace list --output table` shows what there is; then try "
                "`phi3 azure check`."
            )
        return self


def load_settings(env: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None) -> AzureSettings:
    """Read the settings from YAML file and environment, with `overrides` over both.

    Raises:
        UserError: A key is unknown (names the nearest), a value is out of range, or the file cannot be read.
    """
    env = os.environ if env is None else env
    known = list(AzureSettings.model_fields)
    values, where = _from_file(env, known)
    for variable in sorted(env):
        if variable.startswith(PREFIX) and variable != CONFIG:
            name = variable.removeprefix(PREFIX).lower()
            if name not in known:
                raise UserError(f"{variable} is no setting.{nearest(variable, [_variable(name) for name in known])}")
            if env[variable]:
                values[name], where[name] = env[variable], variable
    for name, value in (overrides or {}).items():
        values[name], where[name] = value, f"configuration of the run: {name}"
    try:
        return AzureSettings(**values)
    except pydantic.ValidationError as error:
        raise UserError("; ".join(_told(one, where) for one in error.errors()) + ".") from None


def _told(error: Any, where: Mapping[str, str]) -> str:
    """One of pydantic's errors as a sentence without its full stop; a token given for its name is not repeated."""
    name = str(error["loc"][0])
    place = where.get(name, name)
    if name == _IN_THE_VAULT:
        return f"{place}: not the name of a secret; the token itself belongs into the key vault, see docs/azureml.md"
    return f"{place}: {error['msg']}, got {error['input']!r}"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _from_file(env: Mapping[str, str], known: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    named = env.get(CONFIG, "")
    home = Path(env["PHI3_HOME"]) if env.get("PHI3_HOME") else default_home()
    path = Path(named).expanduser() if named else home / "setup" / "azure.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if not named:
            return {}, {}
        raise UserError(f"{CONFIG}={named}: there is no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}).") from None
    values = read_yaml(text, str(path)) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path} must be a mapping, like 'workspace: my-workspace'.")
    for name in values:
        if name not in known:
            raise UserError(f"{path}: {name!r} is no setting of Azure.{nearest(str(name), known)}")
    return values, {name: f"{path}: {name}" for name in values}
