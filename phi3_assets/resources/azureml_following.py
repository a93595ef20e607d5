"""One command job: finding or submitting it, following it to its end, cancelling it."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, TypeVar

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.errors import WORKSPACE_ROLE, patiently, readable, status_of
from phi3_assets.core.errors import TransientError, UserError

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, Job

COMPLETED = "Completed"
CANCELED = "Canceled"
OVER = {COMPLETED, "Failed", CANCELED}
_WAITING = {"NotStarted", "Starting", "Provisioning", "Preparing", "Queued"}
# Neither over nor at work: the node answers no more, or somebody holds the job up.
_STUCK = {"NotResponding", "Paused", "Unknown"}
_ENDING = "CancelRequested"

T = TypeVar("T")


def to_its_end(action: Callable[[], T]) -> T:
    """Do it, and let an interrupt wait until it is done.

    A request that is cut off may take effect nevertheless, later than anybody looks.
    """
    with ThreadPoolExecutor(1, "request") as pool:
        return pool.submit(action).result()


def status_of_job(job: "Job") -> str:
    """Its status as the service calls it."""
    return str(getattr(job.status, "value", job.status))


class FollowedJob:
    """A job by its name, whether or not it exists yet."""

    def __init__(self, clients: Clients, name: str, log: Callable[[str], None]) -> None:
        """Sentences for the run's log go to `log`."""
        self.name = name
        self._clients = clients
        self._settings = clients.settings
        self._log = log

    def find(self) -> "Job | None":
        """The job, or None if there is none of this name."""
        from azure.core.exceptions import ResourceNotFoundError

        def get() -> "Job | None":
            with readable(f"Job {self.name}", WORKSPACE_ROLE):
                try:
                    return self._clients.ml.jobs.get(self.name)
                except ResourceNotFoundError:
                    return None

        return self._patiently(get)

    def submit(self, entity: "Command") -> "Job":
        """Submit it; whatever becomes of the answer there will be one job of this name, or an error.

        Raises:
            UserError: The service refuses it.
            TransientError: It could not be reached for long.
        """
        what = f"Submitting job {self.name}"

        def put() -> "Job":
            from azure.ai.ml.exceptions import MlException

            try:
                # It ends its progress bar, which is off, with a colour code and an empty line.
                with readable(what, WORKSPACE_ROLE), redirect_stderr(StringIO()):
                    return to_its_end(lambda: self._clients.ml.jobs.create_or_update(entity))
            except MlException as error:  # the client's own validation
                raise UserError(f"{what}: {' '.join(str(error).split())}") from error
            except (UserError, TransientError):
                # The answer to a PUT that succeeded may be lost, and the client's own second try is then refused for
                # changing a job. The name is ours: if the job is there, it is the one.
                made = self.find()
                if made is None:
                    raise
                return made

        return self._patiently(put)

    def follow(self, job: "Job") -> str:
        """Wait for its end, and tell what becomes of it.

        Returns:
            Its last status, one of `OVER`.

        Raises:
            UserError: It waited longer than `queue_timeout_minutes`, and was cancelled; or somebody cancelled it, and
                it was not over `grace_minutes` later.
            TransientError: The node did not answer, or the service did not, for `grace_minutes`.
        """
        told = ""
        since = time.monotonic()
        while True:
            status = status_of_job(job)
            if status in OVER:
                return status
            if status != told:
                self._log(f"Job {self.name} is {status}.")
                if (status in _WAITING) != (told in _WAITING) or status in {*_STUCK, _ENDING}:
                    since = time.monotonic()
                told = status
            minutes = (time.monotonic() - since) / 60
            if status in _WAITING and minutes > self._settings.queue_timeout_minutes:
                self.cancel()
                raise UserError(
                    f"Job {self.name} was cancelled: it had been {status} for {minutes:.3g} minutes "
                    f"(PHI3_AZURE_QUEUE_TIMEOUT_MINUTES). Either {self._settings.compute} is busy, it may not grow, or "
                    "the subscription's quota is used up: `az ml compute show`, `az ml compute list-usage`."
                )
            if status in _STUCK and minutes > self._settings.grace_minutes:
                self.cancel()
                raise TransientError(f"Job {self.name} was cancelled: it had been {status} for {minutes:.3g} minutes.")
            if status == _ENDING and minutes > self._settings.grace_minutes:
                raise UserError(
                    f"Job {self.name} was cancelled by somebody in the workspace and is not over after {minutes:.3g} "
                    f"minutes; it may cost money. Look at {job.studio_url}."
                )
            time.sleep(self._settings.poll_s)
            found = self.find()
            if found is None:
                raise UserError(f"Job {self.name} is gone from workspace {self._settings.workspace}.")
            job = found

    def cancel(self) -> None:
        """Cancel it and wait until it is over, so that nothing is paid for any more.

        Raises:
            UserError: Whoever runs this may not cancel it.
            TransientError: It was not over after `grace_minutes`; it says where to look.
        """
        to_its_end(self._cancel)

    def _cancel(self) -> None:
        until = time.monotonic() + self._settings.grace_minutes * 60
        asked = told = False
        job = None
        while time.monotonic() < until:
            if not asked:
                asked = self._ask_to_cancel()
                if not asked and not told:
                    told = True
                    self._log(f"Cancelling job {self.name} failed; it is tried again.")
            job = self.find()
            if job is None or status_of_job(job) in OVER:
                return
            time.sleep(min(1.0, self._settings.poll_s))
        raise TransientError(
            f"Job {self.name} was asked to end and is still {status_of_job(job) if job else 'unknown'} after "
            f"{self._settings.grace_minutes:g} minutes; it may cost money. Look at {job.studio_url if job else 'it'}."
        )

    def _ask_to_cancel(self) -> bool:
        from azure.core.exceptions import AzureError

        try:
            # Not the poller's end: a cancellation can hang for hours, and the job's own state tells.
            self._clients.ml.jobs.begin_cancel(self.name)
        except AzureError as error:
            if status_of(error) in {400, 404, 409}:  # it is over, or in the midst of ending
                return True
            if status_of(error) == 403:
                with readable(f"Cancelling job {self.name}, which goes on and costs money", WORKSPACE_ROLE):
                    raise
            return False
        return True

    def _patiently(self, function: Callable[[], "Job | None"]) -> "Job | None":
        return patiently(function, self._settings.grace_minutes * 60, self._log)
