"""Is the disk at fault, or the database? What a full or closed one looks like in the words of those who write to it."""

import errno
import os
import shutil
from collections.abc import Iterator

_OF_SQLITE = (
    "attempt to write a readonly database",
    "unable to open database file",
    "not a database",
    "disk I/O error",  # also of a full disk, where the journal and not the database grows
)


def is_out_of_space(error: BaseException) -> bool:
    """True when a full disk or quota stands anywhere in the chain; SQLite, safetensors and pyarrow say it in words."""
    texts = (os.strerror(errno.ENOSPC), "database or disk is full")
    return any(
        (isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT))
        or any(text in str(one) for text in texts)
        for one in _chain(error)
    )


def of_the_disk(error: BaseException, dagster_home: str) -> str | None:
    """What to tell a user when the disk and not the program is at fault; None: it is neither full nor closed to us.

    Args:
        error: What was raised.
        dagster_home: Where Dagster keeps its databases, which report in words of their own.
    """
    in_sqlite = next((text for one in _chain(error) for text in _OF_SQLITE if text in str(one)), "")
    if is_out_of_space(error) or (in_sqlite and _is_full(dagster_home)):
        return (
            f"The disk is full, so the home or Dagster's database in {dagster_home or 'DAGSTER_HOME'} cannot be "
            "written. Free some space, or point --home and DAGSTER_HOME at a larger disk."
        )
    for one in _chain(error):
        if isinstance(one, OSError) and one.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and one.filename:
            return (
                f"{os.fsdecode(one.filename)} cannot be read or written ({one.strerror}). Change its permissions, or "
                "give another folder with --home."
            )
    if in_sqlite:
        return (
            f"Dagster's database in {dagster_home or 'DAGSTER_HOME'} cannot be used ({in_sqlite}). Look at its "
            "permissions, or move it away: only the history of runs is there."
        )
    return None


def of_the_database(error: BaseException) -> str | None:
    """What to tell a user when the PostgreSQL that Dagster stores in went away; None: it is not that.

    By the error's name: who stores in SQLite has no driver for PostgreSQL.
    """
    for one in _chain(error):
        if type(one).__module__.startswith("psycopg2") and type(one).__name__ in ("OperationalError", "InterfaceError"):
            said = str(one).strip().partition("\n")[0]  # what follows are guesses
            return (
                f"Dagster's database cannot be reached, so nothing more can be told of this run: {said}. "
                "What was made is kept. `phi3 doctor` says whether PostgreSQL is back; the same command then goes on."
            )
    return None


def _is_full(folder: str) -> bool:
    return os.path.isdir(folder) and shutil.disk_usage(folder).free < 1 << 20


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all that led to it: causes, and what was being handled when it was raised."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [before for before in (one.__cause__, one.__context__) if before is not None]
