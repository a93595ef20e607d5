"""Reading what a worker says that runs elsewhere; its other side is `phi3_assets.worker.blob_messages`."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from phi3_assets.core.errors import TransientError
from phi3_assets.resources.messages import FollowingMessageReader, Messages
from phi3_assets.worker.blob_messages import PREFIX_KEY, chunk_name

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class BlobMessageReader(FollowingMessageReader):
    """Follows the chunks of one job from the first on, until it is told that there will be no more.

    A job that was preempted opens and closes more than once, so that a worker says it is done ends nothing here.
    """

    def __init__(self, container: "ContainerClient", prefix: str, messages: Messages, every_s: float) -> None:
        """Looks for the next chunk every `every_s` seconds; custom messages go to `messages`."""
        super().__init__(messages)
        self._container = container
        self._prefix = prefix
        self._every_s = every_s
        self.read = 0

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, Any]]:
        """See `PipesMessageReader.read_messages`."""
        with self.following(partial(self._follow, handler)):
            yield {PREFIX_KEY: self._prefix}

    def no_messages_debug_text(self) -> str:
        """For Dagster's warning when nothing came."""
        return f"Attempted to read messages from the blobs below {self._prefix}."

    def _follow(self, handler: Any, ended: threading.Event) -> None:
        from phi3_assets.azure.errors import patiently, readable, retried

        def next_chunk() -> bytes | None:
            with readable(f"Messages below {self._prefix}"):
                return retried(lambda: self._download(chunk_name(self._prefix, self.read + 1)))

        try:
            last = False
            while not last:
                last = ended.wait(self._every_s)
                while (chunk := patiently(next_chunk, 600, lambda told: None)) is not None:
                    self.read += 1
                    for line in chunk.decode().splitlines():
                        self._messages.dispatch(json.loads(line), handler)
        except TransientError:
            # The job's own state decides how the step ends; what it said can be read in its log.
            handler.report_pipes_framework_exception(type(self).__name__, sys.exc_info())
        except Exception:
            handler.report_pipes_framework_exception(type(self).__name__, sys.exc_info())
            raise

    def _download(self, name: str) -> bytes | None:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            content: bytes = self._container.download_blob(name).readall()
        except ResourceNotFoundError:
            return None
        return content
