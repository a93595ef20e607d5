"""Word that this machine is about to be taken away, as Azure gives it about machines of low priority, 30 s before.

The metadata service of the machine lists scheduled events, one of type Preempt among them. It can be withdrawn. Only
this service says so: a compute cluster sends no signal first. Where there is no such service, as on Kubernetes, it is
asked rarely, and nothing is ever announced.
"""

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from types import TracebackType
from typing import Any

_METADATA = "http://169.254.169.254/metadata"
_EVENTS = f"{_METADATA}/scheduledevents?api-version=2020-07-01"
_NAME = f"{_METADATA}/instance/compute/name?api-version=2021-02-01&format=text"
POLL_S = 3.0
ABSENT_S = 60.0
"""How often a service is asked that has never answered."""
GRACE_S = 120.0
"""How long after the announced time a machine that still runs is taken for spared."""
MAX_AHEAD_S = 600.0
"""A time further ahead is not waited for: others that train with this machine would take it for lost."""
_ANSWER_S = 10.0


class Notice:
    """Asks the metadata service in a thread while `with notice:` lasts; see `phi3_assets.core.step.Interruption`."""

    def __init__(
        self,
        secure: Callable[[], None],
        log: Callable[[str], None],
        *,
        poll_s: float = POLL_S,
        grace_s: float = GRACE_S,
    ) -> None:
        """Make it; nothing is asked yet.

        Args:
            secure: Brings the checkpoint that was just written to where it outlives the machine; returns when it did.
            log: Shows a line to the user; called from a thread.
            poll_s: Seconds between two questions to a service that answers.
            grace_s: As `GRACE_S`.
        """
        self._secure, self._log, self._poll_s, self._grace_s = secure, log, poll_s, grace_s
        # Proxies as the environment names them, once: it is read in another thread than may change it.
        self._opener = urllib.request.build_opener()
        self._deadlines: dict[str, float] = {}  # by event, on the monotonic clock
        self._pending: frozenset[str] = frozenset()
        self._own_name = ""
        self._answered = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notice", daemon=True)

    def announced(self) -> bool:
        """Whether this machine is about to be taken away; False again if the event is withdrawn or nothing came."""
        now = time.monotonic()
        return any(now < self._deadlines[event] for event in self._pending)

    def checkpoint_written(self) -> None:
        """Bring the checkpoint to where it outlives this machine."""
        self._secure()

    def __enter__(self) -> "Notice":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stopping.set()
        # It may wait for an answer; nothing depends on that.

    def _run(self) -> None:
        while True:
            self._ask()
            if self._stopping.wait(self._poll_s if self._answered else ABSENT_S):
                return

    def _ask(self) -> None:
        """Ask once. A service that does not answer changes nothing: an announcement stands until it is withdrawn."""
        try:
            if not self._answered:
                self._own_name = self._ask_own_name()
            events = json.loads(self._get(_EVENTS))["Events"]
            ours = {event["EventId"]: event for event in events if self._is_ours(event)}
        except (OSError, HTTPException, ValueError, KeyError, TypeError):
            # None here, not one of Azure's, or busy: this is asked on every machine, and no answer is the usual case.
            return
        self._answered = True
        for name, event in ours.items():
            if name not in self._deadlines:
                ahead_s = _seconds_until(event.get("NotBefore"))
                self._deadlines[name] = time.monotonic() + ahead_s + self._grace_s
                self._log(
                    f"This machine is to be taken away in {ahead_s:.0f} s (preemption). A training writes a checkpoint "
                    "now and waits; the next machine, or this one if it is spared, goes on from it."
                )
        if self._pending - ours.keys():
            self._log("The preemption was withdrawn: this machine is spared")
        self._pending = frozenset(ours)

    def _ask_own_name(self) -> str:
        """This machine's name, which an event says if it is about it; "": it cannot be learnt."""
        try:
            name = self._get(_NAME).strip()
        except (OSError, HTTPException, ValueError):
            return ""
        return name if re.fullmatch(r"[\w.-]+", name) else ""

    def _is_ours(self, event: dict[str, Any]) -> bool:
        # All machines of a scale set are told of each other's events.
        others = event.get("Resources")
        return event["EventType"] == "Preempt" and (not self._own_name or not others or self._own_name in others)

    def _get(self, url: str) -> str:
        request = urllib.request.Request(url, headers={"Metadata": "true"})  # noqa: S310 (a constant, over http)
        with self._opener.open(request, timeout=_ANSWER_S) as answer:
            return str(answer.read(1 << 20).decode("utf-8"))


def _seconds_until(not_before: str | None) -> float:
    """Seconds until a time as HTTP writes it; 0: it has begun, as an empty one says, or cannot be read."""
    if not not_before:
        return 0.0
    try:
        when = parsedate_to_datetime(not_before)
    except ValueError:
        return 0.0
    ahead_s = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(ahead_s, 0.0), MAX_AHEAD_S)
