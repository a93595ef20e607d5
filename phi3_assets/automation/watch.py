"""Is a retrain to be started now, and why not? Pure decisions for the sensor; no Dagster here.

What is decided follows from three things: the content of the files, the runs that Dagster knows, and the cursor, which
is written together with the request for a run. So it comes out the same in whatever order daemons and memories are
lost: a data version is retrained once. What holds it back is said at each tick, and when that is over it starts.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from phi3_assets.data.watched.changes import Changes

# Pauses before another run of a data version that failed for a reason that may pass. The run itself has tried for some
# minutes already.
COME_BACK_S = (300.0, 1800.0, 7200.0)
DAY_S = 86400.0


@dataclass(frozen=True)
class Cursor:
    """What the sensor knows by heart.

    Attributes:
        product: The product it is about; for another one it says nothing.
        asked: The data version that the last run was asked for; "": none yet.
        run: Id of the newest run that was taken into account; "": none yet.
        observed: The data version that was last seen at rest, trained on or not; "": none yet.
    """

    product: str
    asked: str = ""
    run: str = ""
    observed: str = ""

    @classmethod
    def parse(cls, text: str | None, product: str) -> "Cursor":
        """Read a cursor; one that is lost, of another product or not to be read is an empty one."""
        try:
            cursor = cls(**json.loads(text or ""))
        except (ValueError, TypeError):
            return cls(product)
        return cursor if cursor.product == product else cls(product)

    def dump(self) -> str:
        """The text to keep."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class PastRun:
    """A run of the whole graph for this product and recipe, whoever started it.

    Attributes:
        run: Its id.
        version: The data version that it read, or is to read; "": it has not begun to read.
        counts: Whether it settles its data version: the sensor asked for it, or it succeeded.
        attempt: Which run for this data version it was, from 1.
        failed_transiently: It ended for a reason that may pass: the hub was away, memory was short, it was killed.
        ended_s: Unix time; None while it goes on.
    """

    run: str
    version: str
    counts: bool
    attempt: int = 1
    failed_transiently: bool = False
    ended_s: float | None = None


@dataclass(frozen=True)
class Limits:
    """What holds a retrain back, by the recipe; 0: nothing.

    Attributes:
        min_new_rows: Fewest rows that came or went since the data version that a run was asked for last.
        quiet_s: How long the data must not have changed.
        runs_a_day: Most runs that the sensor may start within 24 hours.
    """

    min_new_rows: int = 0
    quiet_s: float = 0.0
    runs_a_day: int = 0


@dataclass(frozen=True)
class News:
    """What a tick found.

    Attributes:
        version: Data version of the folder, 16 hex digits, as runs name it.
        files: How many there are.
        since_s: Unix time of the tick that first found this version.
        changes: Since the version that a run was asked for last; None: that one's files are not remembered.
    """

    version: str
    files: int
    since_s: float
    changes: Changes | None = None


@dataclass(frozen=True)
class Decision:
    """What to do now.

    Attributes:
        start: Whether to start a run.
        reason: One sentence for a person: why, or why not.
        cursor: What to remember.
        attempt: Which run for this data version it would be, from 1.
    """

    start: bool
    reason: str
    cursor: Cursor
    attempt: int = 1


def account(cursor: Cursor, runs: Sequence[PastRun]) -> Cursor:
    """Take the newest run into account: what a person had trained by hand need not be trained again.

    Args:
        cursor: Of the last tick, or an empty one if it was lost.
        runs: Newest first.
    """
    newest = next((run for run in runs if run.version and run.counts), None)
    if newest is None or newest.run == cursor.run:
        return cursor
    return replace(cursor, asked=newest.version, run=newest.run)


def decide(
    news: News, cursor: Cursor, runs: Sequence[PastRun], started_s: Sequence[float], limits: Limits, now_s: float
) -> Decision:
    """Decide about data that is at rest.

    Args:
        news: What the tick found.
        cursor: After `account`.
        runs: Newest first.
        started_s: When the sensor started runs within the last 24 hours, Unix time, oldest first.
        limits: The recipe's.
        now_s: Unix time.
    """
    version = news.version
    last = next((run for run in runs if run.version == version), None)
    if version == cursor.asked:
        attempt, reason = _again(news, last, now_s)
    else:
        attempt, reason = 1, _held_back(news, last, runs, limits, now_s)
    if not reason and limits.runs_a_day and len(started_s) >= limits.runs_a_day:
        left_s = max(0.0, started_s[-limits.runs_a_day] + DAY_S - now_s)
        reason = (
            f"Data version {version} is held back: {len(started_s)} runs were started within a day, and "
            f"retrain_runs_a_day is {limits.runs_a_day}. It starts in {_duration(left_s)}."
        )
    if reason:
        return Decision(False, reason, cursor)
    if attempt > 1:
        reason = f"The run for data version {version} failed for a reason that may pass: attempt {attempt}."
    else:
        reason = f"Data version {version}: {_told(news, cursor)}."
    return Decision(True, reason, replace(cursor, asked=version), attempt)


def _told(news: News, cursor: Cursor) -> str:
    if news.changes is not None:
        return str(news.changes)
    return f"{news.files} files" + (f", other ones than those of {cursor.asked}" if cursor.asked else ", the first")


def _held_back(news: News, last: PastRun | None, runs: Sequence[PastRun], limits: Limits, now_s: float) -> str:
    """Why new data is not trained on yet; "": nothing is in the way."""
    version = f"Data version {news.version}"
    if last is not None and last.ended_s is None:  # by hand, or of data that went and came back meanwhile
        return f"{version} waits: run {last.run[:8]} is at it."
    beginning = next((run for run in runs if run.ended_s is None and not run.version), None)
    if beginning is not None:
        return f"{version} waits: run {beginning.run[:8]} is about to read the data, and may be the run for it."
    rows = news.changes.rows if news.changes is not None else None
    if rows is not None and rows < limits.min_new_rows:
        return (
            f"{version} is held back: {rows} rows came or went ({news.changes}), and retrain_min_new_rows is "
            f"{limits.min_new_rows}."
        )
    left_s = news.since_s + limits.quiet_s - now_s
    if left_s > 0:
        return (
            f"{version} is held back: the data changed {_duration(now_s - news.since_s)} ago. It starts in "
            f"{_duration(left_s)} if nothing changes meanwhile (retrain_quiet_minutes)."
        )
    return ""


def _again(news: News, last: PastRun | None, now_s: float) -> tuple[int, str]:
    """Come back to a data version whose run failed for a reason that may pass; with growing pauses, and not for ever.

    A run that failed for a reason of the user's is not started again, nor is one that was cancelled.

    Returns:
        Which run for this data version it would be, and why there is none now; "": nothing is in the way.
    """
    version = f"data version {news.version}"
    if last is None or not last.failed_transiently or last.ended_s is None:
        goes_on = f"; run {last.run[:8]} is at it" if last is not None and last.ended_s is None else ""
        return 1, f"{news.files} files, none changed since {version}{goes_on}."
    if last.attempt > len(COME_BACK_S):
        return 1, (
            f"The runs for {version} failed {last.attempt} times; it is not tried again by itself. See the last run's "
            "reason."
        )
    left_s = last.ended_s + COME_BACK_S[last.attempt - 1] - now_s
    if left_s > 0:
        reason = f"The run for {version} failed for a reason that may pass; it is tried again in {_duration(left_s)}."
        return 1, reason
    return last.attempt + 1, ""


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
