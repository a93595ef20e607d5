"""Azure's errors, told apart: what another try may mend, and what a person must.

azure-core tries each request again by itself, but not an answer that breaks off, a token that ran out on the way, or a
block that arrived with other bytes.
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from phi3_assets.core.errors import TransientError, UserError

PAUSES_S = (1.0, 2.0, 4.0, 8.0)
# 401: the token ran out; azure-core has dropped it by now, and asks for another one.
_PASSING = {401, 408, 429, 500, 502, 503, 504}
_ARRIVED_OTHERWISE = "md5"

T = TypeVar("T")


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later, with nothing changed."""
    from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return True
    if not isinstance(error, HttpResponseError):
        return False
    if error.status_code == 400:
        return _ARRIVED_OTHERWISE in str(error.message).lower()
    # Without a status: the answer broke off while it was read.
    return error.status_code in _PASSING or (error.status_code is None and error.response is None)


def retried(action: Callable[[], T]) -> T:
    """Do it, and again after growing pauses where the reason may pass; the last error is raised."""
    for pause_s in PAUSES_S:
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - many wait at once, and should not return at once
    return action()


STORAGE_ROLE = "'Storage Blob Data Contributor' on the storage account"
WORKSPACE_ROLE = "'AzureML Data Scientist' on the workspace"


@contextmanager
def readable(what: str, role: str = STORAGE_ROLE) -> Iterator[None]:
    """Say what Azure's error means to whom it may concern.

    Args:
        what: What was asked for, such as "Store https://.../container".
        role: Who may have it.

    Raises:
        TransientError: The service was away, or answered with nonsense, for longer than was tried.
        UserError: No access, nobody is logged in, or there is no such container.
    """
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    try:
        yield
    except AzureError as error:
        first = str(error.message).splitlines()[0] if error.message else type(error).__name__
        status = error.status_code if isinstance(error, HttpResponseError) else None
        if isinstance(error, ClientAuthenticationError) and status is None:
            raise UserError(
                f"{what}: nobody is logged in to Azure ({first}). Run `az login`, or give this process a managed "
                "identity or AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET."
            ) from error
        if status == 403:
            raise UserError(
                f"{what}: access was refused ({first}). Whoever runs this needs the role {role}; one that was just "
                "given takes some minutes."
            ) from error
        if status == 404:
            raise UserError(f"{what}: there is no such thing ({first}). Check the PHI3_AZURE_* settings.") from error
        if may_pass(error):
            raise TransientError(f"{what} could not be reached ({first}).") from error
        raise
