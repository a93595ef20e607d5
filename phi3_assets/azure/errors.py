"""Azure's errors, told apart: what another try may mend, and what a person must.

Services say "UserError" for nearly everything, so the HTTP status decides. azure-core tries each request again by
itself, but not an answer that breaks off, a token that ran out on the way, a block that arrived with other bytes, or a
page of HTML where there should be JSON.
"""

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from phi3_assets.core.errors import TransientError, UserError

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
# The token ran out; azure-core has dropped it by now, and asks for another one.
UNAUTHORIZED = 401
_PASSING = {UNAUTHORIZED, 408, 425, 429, 500, 502, 503, 504}
_ARRIVED_OTHERWISE = "md5"
# azure-identity says "not logged in" as well when whoever hands out tokens is away.
_LOGIN_AWAY = re.compile(r"HTTP Error: (429|5\d\d)|[Cc]onnection|[Tt]imed? ?out")
_LONGEST_PAUSE_S = 30.0
_LONGEST_MESSAGE = 600
LOG_IN = (
    "Log in with `az login`, or give this process a managed identity or AZURE_TENANT_ID, AZURE_CLIENT_ID and "
    "AZURE_CLIENT_SECRET. `phi3 azure check` tells what works."
)
STORAGE_ROLE = "'Storage Blob Data Contributor' on the storage account"
WORKSPACE_ROLE = "'AzureML Data Scientist' on the workspace"

T = TypeVar("T")


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later, with nothing changed."""
    from azure.core import exceptions as azure

    if isinstance(error, azure.ServiceRequestError | azure.ServiceResponseError | azure.DecodeError):
        return True
    if isinstance(error, ConnectionError | TimeoutError | json.JSONDecodeError):
        return True
    if not isinstance(error, azure.HttpResponseError):
        # azure-ai-ml wraps what fails while it uploads.
        cause = error.__cause__ if isinstance(error, azure.AzureError) else None
        return isinstance(cause, Exception) and may_pass(cause)
    if isinstance(error, azure.ClientAuthenticationError) and error.status_code is None:
        return _LOGIN_AWAY.search(str(error.message)) is not None
    if error.status_code == 400:
        return _ARRIVED_OTHERWISE in str(error.message).lower()
    # Without a status: the answer broke off while it was read.
    return error.status_code in _PASSING or (error.status_code is None and error.response is None)


def retried(action: Callable[[], T]) -> T:
    """Do it, and again after growing pauses where the reason may pass; the last error is raised.

    A token is refused twice only if it is no good: who is not logged in is told so at once.
    """
    refused = False
    for pause_s in PAUSES_S:
        try:
            return action()
        except Exception as error:
            if not may_pass(error) or (refused and status_of(error) == UNAUTHORIZED):
                raise
            refused = status_of(error) == UNAUTHORIZED
        time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - many wait at once, and should not return at once
    return action()


def patiently(action: Callable[[], T], for_s: float, told: Callable[[str], None]) -> T:
    """Do it, and again for a longer time as long as it raises TransientError.

    Args:
        action: Safe to do again.
        for_s: Seconds until the error is raised after all.
        told: Takes a sentence the first time.
    """
    until = time.monotonic() + for_s
    pause_s = 0.5
    first = True
    while True:
        try:
            return action()
        except TransientError as error:
            left = until - time.monotonic()
            if left <= 0:
                raise
            if first:
                told(f"{error} Tried again for up to {for_s / 60:g} minutes.")
                first = False
            time.sleep(min(pause_s * random.uniform(0.5, 1), left))  # noqa: S311 - as above
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


@contextmanager
def readable(what: str, role: str = STORAGE_ROLE, mend: str = "") -> Iterator[None]:
    """Say what Azure's error means to whom it may concern.

    Args:
        what: What was asked for, such as "Store https://.../container".
        role: Who may have it.
        mend: The way out where it does not exist or is not taken, with an `az` command if there is one.

    Raises:
        TransientError: The service was away, or answered with nonsense, for longer than was tried.
        UserError: No access, nobody is logged in, there is no such thing, or it is not valid.
    """
    from azure.core.exceptions import AzureError

    try:
        yield
    except (AzureError, ConnectionError, TimeoutError, json.JSONDecodeError) as error:
        raise _translated(error, what, role, f" {mend}" if mend else "") from error


def _translated(error: Exception, what: str, role: str, mend: str) -> Exception:
    from azure.core import exceptions as azure

    told, status = _brief(error), status_of(error)
    passing = may_pass(error)
    no_login = isinstance(error, azure.ClientAuthenticationError) and status is None and not passing
    if no_login or status == UNAUTHORIZED:
        return UserError(f"{what}: nobody is logged in to Azure ({told}). {LOG_IN}")
    if status == 403:
        return UserError(
            f"{what}: access was refused ({told}). Whoever runs this needs the role {role} (`az role assignment "
            "create`, see docs/azureml.md, Roles); one that was just given takes some minutes."
        )
    if status == 404:
        return UserError(f"{what}: there is no such thing ({told}).{mend or ' Check the PHI3_AZURE_* settings.'}")
    if passing:
        return TransientError(f"{what} could not be reached ({told}).")
    if status is not None and "quota" in told.lower():
        return UserError(
            f"{what}: the quota does not allow it ({told}). Ask for more in the portal (Azure Machine Learning, "
            "Quotas), or set PHI3_AZURE_COMPUTE and PHI3_AZURE_INSTANCE_COUNT to what there is."
        )
    if status is not None and status < 500:
        return UserError(f"{what}: refused ({told}).{mend}")
    return error


def status_of(error: BaseException) -> int | None:
    """HTTP status that an error of a client carries, or None."""
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _brief(error: BaseException) -> str:
    """The service's own message in one line."""
    text = getattr(getattr(error, "error", None), "message", None) or getattr(error, "message", None) or str(error)
    line = " ".join(str(text).split()) or type(error).__name__
    return line if len(line) <= _LONGEST_MESSAGE else line[:_LONGEST_MESSAGE] + " ..."
