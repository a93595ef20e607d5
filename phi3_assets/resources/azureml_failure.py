"""Why a job failed: the worker's own reason, what the service says of it, and the end of its log."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import dagster as dg

from phi3_assets.azure import history
from phi3_assets.azure.clients import Clients
from phi3_assets.azure.errors import patiently
from phi3_assets.core import memory
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.step import StepCall
from phi3_assets.resources.azureml_following import CANCELED
from phi3_assets.resources.end_of_log import end_of_log
from phi3_assets.resources.execution import TRANSIENT
from phi3_assets.resources.messages import Messages

if TYPE_CHECKING:
    from azure.ai.ml.entities import Job

_PREEMPTED = ("preempt", "pre-empt")


def failure_of(
    clients: Clients, call: StepCall, job: "Job", status: str, messages: Messages, log: Callable[[str], None]
) -> dg.Failure:
    """The worker's own reason if it gave one, else what the service says.

    Args:
        clients: The workspace.
        call: What the job was to make.
        job: The job, which is over.
        status: Its last status.
        messages: What its worker said.
        log: Takes a sentence where the service is waited for.
    """
    name = str(job.name)
    if status == CANCELED:
        said = _said(clients, name)
        reason, transient = f"Job {name} was cancelled, by its time limit or by somebody in the workspace.", False
    elif messages.failed is not None:
        said = _said(clients, name)
        reason, transient = messages.failed, messages.transient
    else:
        reason, transient, said = _reason_of_the_service(clients, call, name, log)
    told = f" The service says: {' '.join(said)}" if said else ""
    return dg.Failure(
        description=f"{call.step}: {reason}{told}",
        metadata={
            "AzureML studio": dg.MetadataValue.url(str(job.studio_url)),
            TRANSIENT: dg.MetadataValue.bool(transient),
            **log_tail(clients, name),
        },
        allow_retries=transient,
    )


def log_tail(clients: Clients, name: str) -> dict[str, Any]:
    """Metadata of a failure: the last lines that a job printed, or why they cannot be had."""
    try:
        return end_of_log(history.log_of(clients, name))
    except (UserError, TransientError) as error:
        return end_of_log(str(error))


def _said(clients: Clients, name: str) -> list[str]:
    try:
        return history.reasons(clients, name)
    except (UserError, TransientError) as error:
        return [f"(what it says cannot be read: {error})"]


def _reason_of_the_service(
    clients: Clients, call: StepCall, name: str, log: Callable[[str], None]
) -> tuple[str, bool, list[str]]:
    """Reason, whether another try may help, and what the service says, of a job whose worker said nothing.

    It alone knows whether nodes were taken away, so it is waited for; if it stays away another try is worth its price,
    because the cheap nodes are those that are taken away, and the next job goes on from the last checkpoint.
    """
    nothing = f"Job {name} failed and gave no reason of its own."
    try:
        said = patiently(lambda: history.reasons(clients, name), clients.settings.grace_minutes * 60, log)
    except TransientError as error:
        return f"{nothing} Whether its nodes were taken away is not known: {error}", True, []
    except UserError as error:
        return f"{nothing} What the service says of it cannot be read: {error}", False, []
    if any(word in line.lower() for line in said for word in _PREEMPTED):
        return nothing, True, said
    if history.was_killed(said):
        lower = memory.what_to_lower({**call.params, **call.settings})
        return f"Job {name} was killed, which is what happens when memory runs out. {lower}", False, said
    return nothing, False, said
