"""What an Azure service or client raised, as something to act on: for the user, for another try, or a defect.

Services say "UserError" for nearly everything, so the HTTP status decides, and the codes inside where there are any.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from phi3_assets.core.errors import TransientError, UserError

T = TypeVar("T")
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_PAUSE_S = 30.0
LOG_IN = (
    "Log in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET (or a workload identity) "
    "where Dagster runs. `phi3 azure check` tells what works."
)


@contextmanager
def asking(what: str, mend: str = "") -> Iterator[None]:
    """Translate what the clients raise while `what` is asked for.

    Args:
        what: What is being done, such as "reading compute 'gpu'".
        mend: What to do if it does not exist or is refused; an `az` command where there is one.

    Raises:
        UserError: It will be refused again: not logged in, no right, not there, not valid.
        TransientError: It may work the next time.
    """
    from azure.core.exceptions import AzureError

    try:
        yield
    except (AzureError, OSError, ValueError) as error:
        raise translate(error, what, mend) from error


def translate(error: Exception, what: str, mend: str = "") -> Exception:
    """The error to raise instead of `error`; itself where it is neither the user's nor the surroundings'."""
    from azure.core import exceptions as azure
    from azure.identity import CredentialUnavailableError

    way_out = f" {mend}" if mend else ""
    status = status_of(error)
    if isinstance(error, CredentialUnavailableError):
        return UserError(f"Azure: {what}: there are no credentials. {LOG_IN}")
    if status == 401 or (isinstance(error, azure.ClientAuthenticationError) and status is None):
        return UserError(f"Azure: {what}: not logged in ({_brief(error)}). {LOG_IN}")
    if status == 403:
        return UserError(f"Azure: {what}: refused, for want of a right ({_brief(error)}).{way_out}")
    if status == 404:
        return UserError(f"Azure: {what}: it does not exist ({_brief(error)}).{way_out}")
    if status in _PASSING or _is_passing(error):
        return TransientError(f"Azure: {what}: {_brief(error)}")
    if status is not None:
        if "quota" in _brief(error).lower():
            return UserError(
                f"Azure: {what}: {_brief(error)}. Ask for more in the portal (Quotas, Azure Machine Learning) or with "
                "`az ml quota`, or set PHI3_AZURE_COMPUTE, PHI3_AZURE_INSTANCE_COUNT to what there is."
            )
        return UserError(f"Azure: {what}: {_brief(error)}.{way_out}")
    return error


def patiently(function: Callable[[], T], for_s: float, told: Callable[[str], None]) -> T:
    """Call `function` again as long as it raises TransientError, at most for `for_s` seconds.

    Args:
        function: Safe to call again.
        for_s: Seconds until the error is raised after all.
        told: Takes a sentence the first time.
    """
    until = time.monotonic() + for_s
    pause = 0.5
    first = True
    while True:
        try:
            return function()
        except TransientError as error:
            left = until - time.monotonic()
            if left <= 0:
                raise
            if first:
                told(f"{error}; tried again for up to {for_s / 60:g} min.")
                first = False
            time.sleep(min(pause * random.uniform(0.5, 1), left))  # noqa: S311 (no secret)
            pause = min(pause * 2, _LONGEST_PAUSE_S)


def status_of(error: BaseException | None) -> int | None:
    """HTTP status that an error of a client carries, or None."""
    while error is not None:
        status = getattr(error, "status_code", None)
        if isinstance(status, int):
            return status
        error = error.__cause__
    return None


def _is_passing(error: BaseException) -> bool:
    from azure.core import exceptions as azure

    # DecodeError and ValueError (of json): a proxy answered in HTML where the service would in JSON.
    kinds = (azure.ServiceRequestError, azure.ServiceResponseError, azure.IncompleteReadError, azure.DecodeError)
    return isinstance(error, (*kinds, ConnectionError, TimeoutError)) or type(error).__name__ == "JSONDecodeError"


def _brief(error: BaseException) -> str:
    """The service's own message, in one line, without its trailing details."""
    inner = getattr(error, "error", None)
    text = getattr(inner, "message", None) or getattr(error, "message", None) or str(error)
    line = " ".join(str(text).split())
    return line if len(line) <= 600 else line[:600] + " ..."
