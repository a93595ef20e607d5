"""Locks that the kernel drops when their holder dies, so that nothing dead holds anything.

A lock is an `flock` on a file, and the file says who holds it. It works between processes, between containers that
share the folder, and across host names: nothing is concluded from a process number. Waiting polls, so that a signal
ends it at once, and tells for whom it waits.
"""

import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TypeVar

from phi3_assets.core.errors import UserError

POLL_S = 0.2

T = TypeVar("T")


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, for the person who waits.

    Attributes:
        run: Id of the Dagster run; "" outside of one.
        making: What is being made, such as "lora_adapter 0123456789abcdef".
    """

    run: str = ""
    making: str = ""
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    def __str__(self) -> str:
        """Such as "run 0a1b2c3d, which is making lora_adapter 0123456789abcdef (process 17 on host desk)"."""
        run = f"run {self.run.partition('-')[0]}" if self.run else "another process"
        making = f", which is making {self.making}" if self.making else ""
        return f"{run}{making} (process {self.pid} on host {self.host})"


class Lock:
    """A lock that is held; `release` it, or die."""

    def __init__(self, file: IO[str]) -> None:
        """Made by `try_lock`."""
        self._file = file

    def release(self) -> None:
        """Let go; a second time does nothing."""
        if not self._file.closed:
            self._file.truncate(0)
            self._file.close()


def try_lock(path: Path, holder: Holder) -> Lock | None:
    """Take the lock if nobody holds it; None if somebody does.

    Raises:
        UserError: The file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError as error:
            file.close()
            raise UserError(
                f"{path} cannot be locked ({error.strerror}): its file system has no locks, and without them two runs "
                "would write at once. Put PHI3_HOME on a local disk, or mount that one with locks."
            ) from error
        except BaseException:
            file.close()
            raise
        if _is_at(file, path):
            break
        file.close()  # it was deleted meanwhile, and whoever comes next would lock another file
    file.truncate(0)
    file.write(json.dumps(asdict(holder)))
    file.flush()
    return Lock(file)


def holder_of(path: Path) -> Holder | None:
    """Who says in the file that they hold it; None: nobody, or somebody who has not said so yet."""
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def is_held(path: Path) -> bool:
    """Whether a living process holds the lock; False where there is no such file."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def wait_for(attempt: Callable[[], T | None], blocking: Callable[[], list[Path]], waiting: Callable[[str], None]) -> T:
    """Try until it works.

    Args:
        attempt: Returns what was to be had, or None.
        blocking: The lock files that stand in the way.
        waiting: Called with who is waited for, once for each.
    """
    told: set[str] = set()
    while (taken := attempt()) is None:
        time.sleep(POLL_S)  # before looking: whoever took it this moment has not written their name yet
        for path in blocking():
            name = str(holder_of(path) or "another process")
            if name not in told and is_held(path):
                told.add(name)
                waiting(name)
    return taken


@contextmanager
def locked(path: Path, holder: Holder, waiting: Callable[[str], None] = lambda who: None) -> Iterator[None]:
    """Hold the lock, after waiting for it if need be."""
    lock = wait_for(lambda: try_lock(path, holder), lambda: [path], waiting)
    try:
        yield
    finally:
        lock.release()


def _open(path: Path) -> IO[str]:
    """Open for writing without wiping the name of whoever holds it."""
    flags = os.O_RDWR | os.O_NOFOLLOW
    try:
        # First without O_CREAT: where the kernel protects /tmp, that is refused for a file of another user's.
        return open(os.open(path, flags), "r+", encoding="utf-8")
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT)
        os.fchmod(descriptor, 0o666)  # whoever may enter the folder may wait, whatever our umask is
        return open(descriptor, "r+", encoding="utf-8")


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(file.fileno())
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
