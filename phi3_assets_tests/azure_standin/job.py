"""One job: what was asked for, where it stands, and what may be done to it from outside."""

import dataclasses
import datetime
import threading
import uuid
from email.utils import format_datetime
from typing import Any

from phi3_assets_tests.azure_standin.resources import now

TERMINAL = ("Completed", "Failed", "Canceled")


@dataclasses.dataclass
class Job:
    """A job's state; `runner.py` moves it along, routes and the test's interface look at it and set flags.

    Attributes:
        name: Its name.
        properties: As they are sent back, but for the status.
        compute: Name of its compute.
        history: Every status that it had, in order.
        attempt: 1, and one more after each preemption.
        error: What it failed of, code and message.
        warnings: What the service has to remark.
        cancel_reason: Why it was cancelled.
        shown: A status that is reported instead of the true one.
        events: What the metadata service of its nodes announces.
        incarnation: Counts changes of `events`.
        secret: What its managed identity's endpoint wants to be shown.
        started_at: When it began to run for the first time.
        ended_at: When it was over.
        log_names: Its logs in the workspace's storage.
        evict: Take its nodes away, now.
        cancel: Somebody wants it cancelled.
        doom: The service itself fails it: code and message.
        killed: Its workspace goes.
        lock: Held while it moves.
        closed: Nothing of it runs any more.
    """

    name: str
    properties: dict[str, Any]
    compute: str
    created_at: str = dataclasses.field(default_factory=now)
    history: list[str] = dataclasses.field(default_factory=lambda: ["Starting"])
    attempt: int = 0
    error: tuple[str, str] | None = None
    warnings: list[str] = dataclasses.field(default_factory=list)
    cancel_reason: str | None = None
    shown: str | None = None
    events: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    incarnation: int = 1
    secret: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    started_at: str | None = None
    ended_at: str | None = None
    log_names: list[str] = dataclasses.field(default_factory=list)
    evict: threading.Event = dataclasses.field(default_factory=threading.Event)
    cancel: threading.Event = dataclasses.field(default_factory=threading.Event)
    doom: tuple[str, str] | None = None
    killed: threading.Event = dataclasses.field(default_factory=threading.Event)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
    closed: threading.Event = dataclasses.field(default_factory=threading.Event)

    @property
    def status(self) -> str:
        """As the service reports it."""
        return self.shown or self.history[-1]

    @property
    def over(self) -> bool:
        """True where nothing more will happen to it."""
        return self.history[-1] in TERMINAL

    def move(self, status: str) -> None:
        """To the next status; one that is to be cancelled says so until it has ended, whatever it does meanwhile."""
        with self.lock:
            cancelling = self.cancel.is_set() and status not in ("CancelRequested", *TERMINAL)
            if self.over or cancelling or status == self.history[-1]:
                return
            if status == "Running" and self.started_at is None:
                self.started_at = now()
            if status in TERMINAL:
                self.ended_at = now()
            self.history.append(status)

    def announce(self, seconds: float) -> None:
        """Say on its nodes that they will be taken away after so many seconds."""
        not_before = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
        event = {
            "EventId": str(uuid.uuid4()),
            "EventType": "Preempt",
            "ResourceType": "VirtualMachine",
            "Resources": ["node0"],
            "EventStatus": "Scheduled",
            "NotBefore": format_datetime(not_before, usegmt=True),
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self.events = [event]
        self.incarnation += 1

    def withdraw(self) -> None:
        """They will stay after all."""
        self.events = []
        self.incarnation += 1

    def kill(self) -> None:
        """The workspace goes: end at once, whatever becomes of it."""
        self.killed.set()

    def wait_closed(self) -> None:
        """Until nothing of it runs any more."""
        self.closed.wait(30)
