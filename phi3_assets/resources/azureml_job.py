"""A step as a command job: its name, and the body that the service is sent."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phi3_assets.azure import layout
from phi3_assets.azure.settings import AzureSettings
from phi3_assets.core.home import SHORT
from phi3_assets.core.step import StepCall, sha256_of
from phi3_assets.steps import step_of

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command

EXPERIMENT = "phi3-assets"
ARTEFACT = "artefact"
KEPT = "kept"
JOB = "job"
PACKAGE = "package"
SERVERLESS = "serverless"
_INPUT = "in_"  # a step's input may not be called like one of the above

# Files from blobs, as fast as they are read; nothing a job does can change them.
_READ_ONLY = "ro_mount"


@dataclass(frozen=True)
class JobRequest:
    """What one command job is to do.

    Attributes:
        name: The job's name, unique in the workspace.
        call: The step.
        inputs: Address (azureml://) of each input's folder, by name.
        package: Address of the folder with our wheel.
        environment: Reference to the environment, azureml:name:version.
        variables: Environment variables; they are readable by whoever may read the job, so no secrets.
        tags: For people who look for it.
    """

    name: str
    call: StepCall
    inputs: Mapping[str, str]
    package: str
    environment: str
    variables: Mapping[str, str]
    tags: Mapping[str, str]


def job_name(call: StepCall, store: str, attempt: int) -> str:
    """Name of the job of an attempt: the same for everybody who wants this artefact in this store.

    Args:
        call: The step.
        store: What tells the store from others, such as its address.
        attempt: From 1.
    """
    step = call.step.replace("_", "-")
    return f"{step}-{call.identity[:SHORT]}-{sha256_of(store)[:6]}-{attempt}"


def processes(call: StepCall, settings: AzureSettings) -> int:
    """Processes that work on a step together, on all nodes."""
    return settings.instance_count * settings.processes_per_node if step_of(call.step).data_parallel else 1


def command_job(request: JobRequest, settings: AzureSettings) -> "Command":
    """The job as azure-ai-ml's entity."""
    from azure.ai.ml import Input, Output, PyTorchDistribution, command
    from azure.ai.ml.entities import ManagedIdentityConfiguration, UserIdentityConfiguration

    call = request.call
    together = processes(call, settings) > 1
    resumes = step_of(call.step).resumes
    outputs = {
        ARTEFACT: Output(
            type="uri_folder",
            path=settings.uri(layout.attempt(call.step, call.identity, request.name)),
            mode="upload",
        )
    }
    if resumes:
        # Mounted and not uploaded at the end: checkpoints are for the case that there is no end.
        path = settings.uri(layout.checkpoints(call.step, call.identity))
        outputs[KEPT] = Output(type="uri_folder", path=path, mode="rw_mount")
    more: dict[str, Any] = {}
    if together:
        more["distribution"] = PyTorchDistribution(process_count_per_instance=settings.processes_per_node)
    if settings.instance_type:
        more["instance_type"] = settings.instance_type
    if settings.compute != SERVERLESS:
        more["compute"] = settings.compute
    elif settings.tier == "spot":
        more["job_tier"] = "Spot"
    identity = (
        UserIdentityConfiguration()
        if settings.identity == "user"
        else ManagedIdentityConfiguration(client_id=settings.client_id or None)
    )
    return command(
        name=request.name,
        display_name=f"{call.step} {call.identity[:SHORT]}",
        experiment_name=EXPERIMENT,
        command=_command_line(request.inputs, resumes=resumes),
        inputs={
            JOB: Input(type="uri_folder", path=settings.uri(f"{layout.job(request.name)}/spec"), mode=_READ_ONLY),
            PACKAGE: Input(type="uri_folder", path=request.package, mode=_READ_ONLY),
            **{
                f"{_INPUT}{name}": Input(type="uri_folder", path=path, mode=_READ_ONLY)
                for name, path in request.inputs.items()
            },
        },
        outputs=outputs,
        environment=request.environment,
        environment_variables=dict(request.variables),
        instance_count=settings.instance_count if together else 1,
        shm_size=settings.shm_size,
        timeout=round(settings.run_timeout_minutes * 60),
        identity=identity,
        tags=dict(request.tags),
        **more,
    )


def _command_line(inputs: Mapping[str, str], *, resumes: bool) -> str:
    """Unpack our wheel and run its worker; several processes of one node each unpack their own."""
    words = [f"--job ${{{{inputs.{JOB}}}}}", f"--artefact ${{{{outputs.{ARTEFACT}}}}}"]
    if resumes:
        words.append(f"--kept ${{{{outputs.{KEPT}}}}}")
    words += [f"--input {name}=${{{{inputs.{_INPUT}{name}}}}}" for name in inputs]
    return (
        f'PACKAGE="$(mktemp -d)" && python -m zipfile -e ${{{{inputs.{PACKAGE}}}}}/phi3_assets-*.whl "$PACKAGE" && '
        f'PYTHONPATH="$PACKAGE" exec python -m phi3_assets.worker.job {" ".join(words)}'
    )
