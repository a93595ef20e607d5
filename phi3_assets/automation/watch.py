"""Has the data changed, and has it come to rest? Pure decisions for the sensor; no Dagster here.

The cursor is made of content, never of a clock: a cursor of times loses files with an old date, and fires again on a
file that was only touched.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import FileEntry, data_files, hash_file
from phi3_assets.core.manifest import digest_of

# Pauses before another run of a data version that failed for a reason that may pass. The run itself has tried for some
# minutes already.
COME_BACK_S = (300.0, 1800.0, 7200.0)


@dataclass(frozen=True)
class Seen:
    """One file as last seen: size in bytes, ctime in ns, SHA-256.

    ctime and not mtime: a copy that keeps dates (cp -p, rsync) can put other bytes behind the same mtime.
    """

    bytes: int
    ctime_ns: int
    sha256: str


@dataclass(frozen=True)
class Cursor:
    """What the sensor remembers between ticks.

    Attributes:
        digest: Content digest of the data version that the last run was asked for; "": none yet.
        seen: Every file of that version by path; spares hashing what has not been touched.
        pending: Files that look different since, as they were at the last tick.
    """

    digest: str = ""
    seen: dict[str, Seen] = field(default_factory=dict)
    pending: dict[str, Seen] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """Read a cursor; one that cannot be read starts from nothing, which costs at most one run that reuses all."""
        try:
            value = json.loads(text or "")
            seen, pending = ({path: Seen(*row) for path, row in value[name].items()} for name in ("seen", "pending"))
            return cls(value["digest"], seen, pending)
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def dump(self) -> str:
        """The text to keep."""

        def rows(files: dict[str, Seen]) -> dict[str, list[int | str]]:
            return {path: [item.bytes, item.ctime_ns, item.sha256] for path, item in files.items()}

        return json.dumps({"digest": self.digest, "seen": rows(self.seen), "pending": rows(self.pending)})


@dataclass(frozen=True)
class Decision:
    """What to do now.

    Attributes:
        digest: Content digest to start a run for; None: start none.
        reason: One sentence for a person: why, or why not.
        cursor: What to remember.
        attempt: Which run for this data version it would be, from 1.
        at_rest: Nothing has changed since the last run that was asked for, and nothing is being changed.
    """

    digest: str | None
    reason: str
    cursor: Cursor
    attempt: int = 1
    at_rest: bool = False


@dataclass(frozen=True)
class LastRun:
    """The newest run of a data version.

    Attributes:
        attempt: Which run for this data version it was, from 1.
        failed_transiently: It ended for a reason that may pass: the hub was away, memory was short, it was killed.
        ended_s: Unix time; None while it goes on.
    """

    attempt: int
    failed_transiently: bool
    ended_s: float | None


def decide(directory: Path, cursor: Cursor, now_s: float, settle_s: float) -> Decision:
    """Look at the folder once and decide.

    A file is at rest when it was last changed `settle_s` seconds ago, or looks as it did at the last tick: the
    second rule holds even if its date lies in the future.

    Args:
        directory: The dataset folder.
        cursor: Of the last tick.
        now_s: Unix time.
        settle_s: How long a file must lie untouched, in seconds.

    Raises:
        UserError: The folder cannot be listed or holds what is no file. A failed listing is not an empty folder: the
            cursor stays.
    """
    if not directory.is_dir():
        raise UserError(f"Dataset folder {directory} cannot be listed: it is missing or not a folder.")
    seen, restless = _look(directory, cursor, now_s, settle_s)
    return _decide(seen, restless, f"was changed less than {settle_s:g} s ago and may", cursor, str(directory))


def decide_remote(marks: Mapping[str, str], cursor: Cursor) -> Decision:
    """The same of a remote folder, by what its listing says of each file (`list_remote`); nothing is fetched.

    There a clock says little: a file is at rest if it looks as it did at the last tick.
    """
    seen = {name: Seen(0, 0, mark) for name, mark in marks.items()}
    before = {**cursor.seen, **cursor.pending}
    moved = next((name for name, item in seen.items() if before.get(name) != item), "")
    return _decide(seen, moved, "is new or was changed since the last look and may", cursor, "The remote folder")


def _look(directory: Path, cursor: Cursor, now_s: float, settle_s: float) -> tuple[dict[str, Seen], str]:
    """Every file of the folder as it is now, and one that may still be being written, if there is one."""
    seen: dict[str, Seen] = {}
    restless = ""
    for path in data_files(directory, "Dataset folder"):
        file = directory / path
        before = cursor.pending.get(path) or cursor.seen.get(path)
        try:
            stat = file.stat()
            untouched = before is not None and (before.bytes, before.ctime_ns) == (stat.st_size, stat.st_ctime_ns)
            digest = before.sha256 if before and untouched else hash_file(file).sha256
        except FileNotFoundError:  # removed between the listing and now; the next tick sees the folder without it
            continue
        except OSError as error:
            raise UserError(f"Dataset folder {directory}: {path} cannot be read ({error.strerror}).") from None
        seen[path] = Seen(stat.st_size, stat.st_ctime_ns, digest)
        if not untouched and now_s - stat.st_mtime_ns / 1e9 < settle_s:
            restless = path
    return seen, restless


def _decide(seen: dict[str, Seen], restless: str, why: str, cursor: Cursor, where: str) -> Decision:
    changed = {path: item for path, item in seen.items() if cursor.seen.get(path) != item}
    if restless:
        reason = f"{restless} {why} still be being written."
        return Decision(None, reason, replace(cursor, pending=changed))
    if not seen:
        return Decision(None, f"{where} holds no file yet.", replace(cursor, pending={}))
    digest = digest_of({path: FileEntry(item.bytes, item.sha256) for path, item in seen.items()})
    if digest == cursor.digest:
        reason = f"{len(seen)} files, none changed since data version {digest[:12]}."
        return Decision(None, reason, Cursor(digest, seen), at_rest=True)
    differ = {path for path in changed if path not in cursor.seen or cursor.seen[path].sha256 != seen[path].sha256}
    names = sorted(differ | (cursor.seen.keys() - seen.keys()))
    what = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return Decision(digest, f"Data version {digest[:12]}: {what} changed.", Cursor(digest, seen))


def try_again(unchanged: Decision, last: LastRun | None, now_s: float) -> Decision:
    """Come back to a data version whose run failed for a reason that may pass; with growing pauses, and not for ever.

    A run that failed for a reason of the user's is not started again, nor is one that was cancelled.

    Args:
        unchanged: What `decide` said of data that is at rest.
        last: The newest run of that data version, if there is one.
        now_s: Unix time.
    """
    if last is None or last.ended_s is None or not last.failed_transiently:
        return unchanged
    version = f"data version {unchanged.cursor.digest[:12]}"
    if last.attempt > len(COME_BACK_S):
        reason = f"{version} failed {last.attempt} times; it is not tried again by itself. See the last run's reason."
        return replace(unchanged, reason=reason[0].upper() + reason[1:])
    left_s = last.ended_s + COME_BACK_S[last.attempt - 1] - now_s
    if left_s > 0:
        reason = f"The run for {version} failed for a reason that may pass; it is tried again in {left_s / 60:.0f} min."
        return replace(unchanged, reason=reason)
    reason = f"The run for {version} failed for a reason that may pass: attempt {last.attempt + 1}."
    return replace(unchanged, digest=unchanged.cursor.digest, reason=reason, attempt=last.attempt + 1)
