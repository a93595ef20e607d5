"""A worker's Dagster Pipes messages as numbered blobs, for an orchestrator that reads them while the job runs.

dagster-pipes' own writer begins at 1 again when a job that was preempted is started anew, finds that blob taken, and
loses every message from then on. Here numbering goes on where an earlier attempt ended; a failed upload is tried again
with the messages that came meanwhile; nothing is lost but the last seconds of a process that is killed.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from dagster_pipes import PipesMessage, PipesMessageWriter, PipesMessageWriterChannel

from phi3_assets.azure.errors import retried

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

EVERY_S = 1.0
PREFIX_KEY = "prefix"


def chunk_name(prefix: str, number: int) -> str:
    """Name of a chunk of messages; the first has number 1."""
    return f"{prefix}/{number:08d}.jsonl"


class BlobMessageWriter(PipesMessageWriter["BlobMessageChannel"]):
    """Uploads what was said, once a second."""

    def __init__(self, container: "ContainerClient") -> None:
        """Chunks go to `container`, below the prefix that the orchestrator's reader names."""
        self._container = container

    @contextmanager
    def open(self, params: Any) -> Iterator["BlobMessageChannel"]:
        """See `PipesMessageWriter.open`."""
        channel = BlobMessageChannel(self._container, params[PREFIX_KEY])
        try:
            yield channel
        finally:
            channel.close()


class BlobMessageChannel(PipesMessageWriterChannel):
    """Collects messages and uploads them from a thread of its own."""

    def __init__(self, container: "ContainerClient", prefix: str) -> None:
        """Begins after what an earlier attempt of this job wrote."""
        self._container = container
        self._prefix = prefix
        written = retried(lambda: list(container.list_blob_names(name_starts_with=prefix + "/")))
        self._number = 1 + max((int(name.rpartition("/")[2].partition(".")[0]) for name in written), default=0)
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._upload_on, name="messages", daemon=True)
        self._thread.start()

    def write_message(self, message: PipesMessage) -> None:
        """Take a message; it is uploaded within a second."""
        with self._lock:
            self._lines.append(json.dumps(message) + "\n")

    def close(self) -> None:
        """Upload what is left, or raise what keeps it from being uploaded."""
        self._ended.set()
        self._thread.join()
        self._upload()

    def _upload_on(self) -> None:
        told = False
        while not self._ended.wait(EVERY_S):
            try:
                self._upload()
            except Exception as error:
                # Kept and tried again with what comes meanwhile; only `close` must give up.
                if not told:
                    print(f"Messages cannot be uploaded for now: {error}", file=sys.stderr, flush=True)
                told = True

    def _upload(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        with self._lock:
            lines = list(self._lines)
        if not lines:
            return
        content = "".join(lines).encode()
        while True:
            blob = self._container.get_blob_client(chunk_name(self._prefix, self._number))
            try:
                retried(partial(blob.upload_blob, content))  # refused where there is one already
            except ResourceExistsError:
                # Either the answer to this very upload was lost, or the number is somebody else's.
                if retried(partial(_content_of, blob)) != content:
                    self._number += 1
                    continue
            break
        self._number += 1
        with self._lock:
            del self._lines[: len(lines)]


def _content_of(blob: "BlobClient") -> bytes:
    return bytes(blob.download_blob().readall())
