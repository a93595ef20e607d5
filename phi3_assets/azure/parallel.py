"""Many files at once and many pieces of a file at once, on so many threads and in so much memory and no more."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import TypeVar

FILES_AT_ONCE = 8
PIECES_AT_ONCE = 8
# What a file's reader has read ahead, or its writer has not written yet, with what is on its way.
PIECES_IN_MEMORY = 2 * PIECES_AT_ONCE

T = TypeVar("T")
Item = TypeVar("Item")


class Stopped(Exception):
    """Another file failed, so the rest is given up."""


class Transfer(AbstractContextManager["Transfer"]):
    """The threads that one directory is moved by.

    Files are worked on side by side, and a large file's pieces too. At the first failure, or a signal, all stop at
    their next piece.
    """

    def __init__(self) -> None:
        """Threads are started as they are needed."""
        self._files = ThreadPoolExecutor(FILES_AT_ONCE, "file")
        self._pieces = ThreadPoolExecutor(PIECES_AT_ONCE, "piece")
        self._room = threading.Semaphore(PIECES_IN_MEMORY)
        self._stopping = threading.Event()

    def __exit__(self, *raised: object) -> None:
        """Wait for what is running."""
        self._stopping.set()
        self._files.shutdown(cancel_futures=True)
        self._pieces.shutdown(cancel_futures=True)

    def each(self, items: Iterable[Item], work: Callable[[Item], None]) -> None:
        """Call `work` for each item, several at once; the first error that one raises is raised."""

        def unless_stopped(item: Item) -> None:
            self._go_on()
            try:
                work(item)
            except BaseException:
                self._stopping.set()
                raise

        futures = [self._files.submit(unless_stopped, item) for item in items]
        for future in as_completed(futures):
            error = future.exception()
            if error is not None and not isinstance(error, Stopped):
                raise error

    def in_order(self, pieces: Iterator[Item], work: Callable[[Item], T]) -> Iterator[T]:
        """The result of `work` for each piece, in their order, several of them ahead.

        A piece has room from before it is taken from `pieces` until its result was used, so that one thread's slow disk
        or connection fills no memory.
        """
        ahead: deque[Future[T]] = deque()
        try:
            while True:
                self._go_on()
                # Who has pieces must not wait for room: those who wait for each other's would wait for ever.
                while not self._room.acquire(blocking=not ahead):
                    yield ahead[0].result()
                    self._done(ahead)
                piece = next(pieces, None)
                if piece is None:
                    self._room.release()
                    break
                ahead.append(self._pieces.submit(work, piece))
                while ahead and ahead[0].done():
                    yield ahead[0].result()
                    self._done(ahead)
            while ahead:
                self._go_on()
                yield ahead[0].result()
                self._done(ahead)
        finally:
            for future in ahead:
                future.cancel()
                self._room.release()

    def _done(self, ahead: "deque[Future[T]]") -> None:
        ahead.popleft()
        self._room.release()

    def _go_on(self) -> None:
        if self._stopping.is_set():
            raise Stopped
