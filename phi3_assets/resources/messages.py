"""What a worker says while it runs, from its Dagster Pipes messages into the run's event log."""

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pipes import PipesDefaultMessageWriter

from phi3_assets.core.shown import PROGRESS, TIME_LEFT
from phi3_assets.resources.execution import Context
from phi3_assets.resources.time_left import TimeLeft, told

LOOK_EVERY_S = 0.25


class Messages:
    """Turns the worker's custom messages into observations of its asset, and remembers why it failed."""

    def __init__(self, context: Context, asset: str, observe_every_s: float) -> None:
        """Observations are attached to `asset`, at most one in `observe_every_s` seconds."""
        self._context = context
        self._asset = asset
        self._every_s = observe_every_s
        self._next = 0.0
        self._left = TimeLeft()
        self.failed: str | None = None
        self.transient = False

    def dispatch(self, message: Any, handler: Any) -> None:
        """Take one message: custom ones here and at once, the others go to Dagster's handler."""
        if message["method"] == "report_custom_message":
            self.handle(message["params"]["payload"])
        else:
            handler.handle_message(message)

    def handle(self, payload: Any) -> None:
        """Take one custom message."""
        if "failed" in payload:
            self.failed, self.transient = payload["failed"], payload["transient"]
        elif "progress" in payload:
            self._observe(payload["progress"], time.monotonic())

    def _observe(self, numbers: dict[str, float], now_s: float) -> None:
        fraction = numbers.get("fraction")
        if now_s < self._next and fraction != 1:
            return
        self._next = now_s + self._every_s
        left = None if fraction is None else self._left.after(now_s, fraction)
        metadata: dict[str, Any] = {
            PROGRESS.get(name, name): float(f"{value:.3g}") if isinstance(value, float) else value
            for name, value in numbers.items()
        }
        if fraction is not None:
            metadata[PROGRESS["fraction"]] = round(100 * fraction, 1)
        if left is not None and fraction != 1:
            metadata[TIME_LEFT] = told(*left)
        self._context.log_event(dg.AssetObservation(asset_key=self._asset, metadata=metadata))


class FollowingMessageReader(dg.PipesMessageReader):
    """Follows what one worker says, in a thread, until it is told that there will be no more."""

    def __init__(self, messages: Messages) -> None:
        """Custom messages go to `messages`."""
        self._messages = messages

    @property
    def expected_writer_count(self) -> int:
        """One worker; inherited, the property warns on every step that it is a preview."""
        return 1

    @contextmanager
    def following(self, follow: Callable[[threading.Event], None]) -> Iterator[None]:
        """Let `follow` run in a thread while this lasts; it ends once its event is set and all that came is read."""
        ended = threading.Event()
        follower = threading.Thread(target=follow, args=(ended,), daemon=True)
        follower.start()
        try:
            yield
        finally:
            ended.set()
            follower.join()


class LiveMessageReader(FollowingMessageReader):
    """Follows the worker's messages in a temporary file, and hands custom ones on at once.

    Dagster's own reader keeps custom messages until the process has ended, and looks into the file a hundred times a
    second: each look takes a core from the threads of a training, which wait for one another.
    """

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, Any]]:
        """See `PipesMessageReader.read_messages`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "messages"
            path.touch()
            with self.following(partial(self._follow, path, handler)):
                yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(path)}

    def no_messages_debug_text(self) -> str:
        """For Dagster's warning when nothing came."""
        return "Attempted to read messages from a local temporary file."

    def _follow(self, path: Path, handler: Any, ended: threading.Event) -> None:
        try:
            with path.open(encoding="utf-8") as lines:
                line = ""
                last = False
                while not last:
                    last = ended.wait(LOOK_EVERY_S)
                    while part := lines.readline():
                        line += part
                        if line.endswith("\n"):  # else the writer is in the midst of it
                            self._messages.dispatch(json.loads(line), handler)
                            line = ""
        except Exception:
            handler.report_pipes_framework_exception(type(self).__name__, sys.exc_info())
            raise
