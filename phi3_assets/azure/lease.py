"""A blob's lease as a lock between machines: it falls to the next a minute after its holder died."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from phi3_assets.azure.blobs import url_of
from phi3_assets.azure.errors import may_pass, readable, retried
from phi3_assets.core.errors import TransientError
from phi3_assets.core.locks import Holder

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient

POLL_S = 1.0


@contextmanager
def leased(
    blob: "BlobClient", lease_id: str, holder: Holder, waiting: Callable[[str], None], seconds: int
) -> Iterator[None]:
    """Hold a blob's lease, after waiting for it if need be.

    Args:
        blob: Is made if it is not there; its content says who holds it.
        lease_id: UUID of whoever may hold it once. Who asks with the same one again has it at once, as after a kill.
        holder: What is written into it for those who wait.
        waiting: Called with who holds it, once for each who does.
        seconds: How long it lasts without being renewed, 15 to 60; it is renewed three times as often.

    Raises:
        TransientError: The lease was lost on the way, as when this machine was cut off for that long, and the work
            ended nevertheless; or the service could not be reached.
    """
    what = f"Claim {url_of(blob)}"
    with readable(what):
        lease = _acquire(blob, lease_id, waiting, seconds)
        text = json.dumps(asdict(holder)).encode()
        retried(lambda: blob.upload_blob(text, overwrite=True, lease=lease))
    renewal = _Renewal(lease, seconds)
    try:
        yield
    except BaseException:
        renewal.end()
        raise
    if not renewal.end():
        raise TransientError(f"{what} was lost while it was held: this machine could not renew it in {seconds} s.")


class _Renewal:
    """The thread that renews a lease."""

    def __init__(self, lease: Any, seconds: int) -> None:
        self._lease = lease
        self._seconds = seconds
        self._held_at = time.monotonic()
        self._lost = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def end(self) -> bool:
        """Let go; whether it was held until now."""
        self._over.set()
        self._thread.join()
        return not self._lost and self._tried(self._lease.release)

    def _renew(self) -> None:
        pause_s = self._seconds / 3
        while not self._lost and not self._over.wait(pause_s):
            pause_s = self._seconds / 3 if self._tried(self._lease.renew) else POLL_S

    def _tried(self, request: Callable[[], object]) -> bool:
        """Whether the service agreed; a refusal means that another has it, or may have."""
        from azure.core.exceptions import AzureError

        try:
            request()
        except AzureError as error:
            out = time.monotonic() - self._held_at > self._seconds
            self._lost = self._lost or out or not may_pass(error)
            # Without an answer it ends by itself, soon enough.
            return self._over.is_set() and not self._lost
        self._held_at = time.monotonic()
        return True


def _acquire(blob: "BlobClient", lease_id: str, waiting: Callable[[str], None], seconds: int) -> Any:
    from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError

    told: set[str] = set()
    while True:
        try:
            return retried(lambda: blob.acquire_lease(lease_duration=seconds, lease_id=lease_id))
        except ResourceNotFoundError as error:
            if error.error_code != "BlobNotFound":
                raise
            _make(blob)
            continue
        except ResourceExistsError as error:
            if error.error_code != "LeaseAlreadyPresent":
                raise
        # Before looking: whoever took it this moment has not written their name yet.
        time.sleep(POLL_S)
        try:
            name = str(Holder(**json.loads(retried(lambda: blob.download_blob().readall()))))
        except (ValueError, TypeError):
            name = "another process"
        except HttpResponseError as error:
            if error.status_code != 404:
                raise
            continue
        if name not in told:
            told.add(name)
            waiting(name)


def _make(blob: "BlobClient") -> None:
    from azure.core.exceptions import ResourceExistsError

    try:
        retried(lambda: blob.upload_blob(b"", overwrite=False))
    except ResourceExistsError:  # another was faster
        return
