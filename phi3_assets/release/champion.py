"""The champion: which release is the one to take, who it replaced and why, and who was refused.

One small file in the home, `gen-model/champion.json`, holds every decision; the last one that was no refusal names the
champion. It is replaced by one rename, so a reader sees the old state or the new one. Entries are only ever added, and
each carries the hash of the one before, so a history that was edited is noticed.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import filelock

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import json_text, write_atomically
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.step import sha256_of

FORMAT = 1
LOCK_TIMEOUT_S = 30.0
Action = Literal["promote", "rollback", "refuse"]


@dataclass(frozen=True)
class Entry:
    """One decision.

    Attributes:
        number: 1 for the first.
        action: promote, rollback to the champion before, or refuse, which leaves the champion as it is.
        release: The release_bundle that is champion from here on, or that was refused; None if the model was not even
            fit to be bundled.
        report: The eval_report it was judged by.
        decision: What the gate said (`Decision.to_dict()`), or {"sentence": ...} with a person's reason; "made_of", the
            artefacts of the release by name, and "page", its comparison with the champion, where there are such.
        at: UTC, ISO 8601.
        previous: SHA-256 of the entry before; "" for the first.
    """

    number: int
    action: Action
    release: ArtefactRef | None
    report: ArtefactRef
    decision: dict[str, Any]
    at: str
    previous: str

    def to_dict(self) -> dict[str, Any]:
        """JSON form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Entry":
        """Inverse of `to_dict`."""
        refs = {name: ArtefactRef(**value[name]) if value[name] else None for name in ("release", "report")}
        return cls(**{**value, **refs})


def champion_path(home: Path) -> Path:
    """Where the pointer stands."""
    return home / "gen-model" / "champion.json"


def history(home: Path) -> list[Entry]:
    """All decisions, oldest first; empty when there never was one.

    Raises:
        DamagedArtefact: The file is not JSON, of another format, or was edited.
    """
    path = champion_path(home)
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return []
    way_out = "Restore it from a backup; releases themselves are untouched, in gen-model/release_bundle."
    try:
        value = json.loads(text)
        if value["format"] != FORMAT:
            raise DamagedArtefact(f"{path} has format {value['format']}; this version reads format {FORMAT}.")
        entries = [Entry.from_dict(entry) for entry in value["history"]]
        last = value["last"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedArtefact(f"{path} is damaged ({error!r}). {way_out}") from None
    before = ""
    for number, entry in enumerate(entries, 1):
        if entry.number != number or entry.previous != before:
            raise DamagedArtefact(f"{path} was edited: entry {number} does not follow from the one before. {way_out}")
        before = sha256_of(entry.to_dict())
    if last != before:
        raise DamagedArtefact(f"{path} was edited: its last entry is not the one that was written. {way_out}")
    return entries


def champion(home: Path) -> Entry | None:
    """The entry that made the present champion, or None."""
    return _present(history(home))


def _present(entries: list[Entry]) -> Entry | None:
    return next((entry for entry in reversed(entries) if entry.action != "refuse"), None)


def promote(
    home: Path,
    release: ArtefactRef,
    report: ArtefactRef,
    decision: Mapping[str, Any],
    *,
    judged_against: ArtefactRef | None,
    check: Callable[[ArtefactRef], object],
) -> Entry:
    """Make a release the champion; promoting the present champion again changes nothing.

    Args:
        home: PHI3_HOME.
        release: The release_bundle.
        report: The eval_report it was judged by.
        decision: The gate's, as a dictionary; must say promote.
        judged_against: The champion's release at the time of the decision, None if there was none. If another one was
            promoted meanwhile, the decision no longer says anything.
        check: Called with each artefact; raises if it is missing or damaged.

    Raises:
        UserError: The decision is not to promote, or the champion has changed since.
        DamagedArtefact: From `check`.
    """
    if not decision.get("promote"):
        raise UserError(f"The gate decided against it. {decision.get('sentence', '')}".strip())
    check(release)
    check(report)
    with _locked(home):
        entries = history(home)
        present = _present(entries)
        now = present.release if present else None
        if present is not None and now == release:
            return present
        if now != judged_against:
            raise UserError(
                f"The champion is now {_name(now)}; this decision was made against {_name(judged_against)}. "
                "Materialise the gate again."
            )
        return _append(home, entries, "promote", release, report, decision)


def refuse(home: Path, release: ArtefactRef | None, report: ArtefactRef, decision: Mapping[str, Any]) -> Entry:
    """Record that the gate said no. Said again while nothing else was decided of it, it is recorded once.

    Args:
        home: PHI3_HOME.
        release: The release_bundle that does not become champion; None if the model was not fit to be bundled.
        report: The eval_report it was judged by.
        decision: The gate's, as a dictionary.
    """
    with _locked(home):
        entries = history(home)
        for entry in reversed(entries):
            if entry.action != "refuse":
                break
            if (entry.release, entry.report, entry.decision) == (release, report, decision):
                return entry
        return _append(home, entries, "refuse", release, report, decision)


def rollback(home: Path, reason: str, *, check: Callable[[ArtefactRef], object]) -> Entry:
    """Make the champion before the present one champion again; called twice, it goes back two.

    Args:
        home: PHI3_HOME.
        reason: Why, for the history.
        check: Called with the release to go back to; raises if it is missing or damaged.

    Raises:
        UserError: There is none to go back to.
        DamagedArtefact: From `check`.
    """
    with _locked(home):
        entries = history(home)
        line = succession(entries)
        if len(line) < 2:
            raise UserError("There is no champion before this one to go back to; `phi3 champion history` lists all.")
        target = line[-2]
        assert target.release is not None
        check(target.release)
        # What it was made of goes along, for the next candidate is compared with it.
        kept = {name: target.decision[name] for name in ("made_of",) if name in target.decision}
        return _append(home, entries, "rollback", target.release, target.report, {**kept, "sentence": reason})


def succession(entries: list[Entry]) -> list[Entry]:
    """The promotions that led to the present champion, without those that were rolled back."""
    line: list[Entry] = []
    for entry in entries:
        if entry.action == "rollback":
            line.pop()
        elif entry.action == "promote":
            line.append(entry)
    return line


def _append(
    home: Path,
    entries: list[Entry],
    action: Action,
    release: ArtefactRef | None,
    report: ArtefactRef,
    decision: Mapping[str, Any],
) -> Entry:
    entry = Entry(
        number=len(entries) + 1,
        action=action,
        release=release,
        report=report,
        decision=dict(decision),
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        previous=sha256_of(entries[-1].to_dict()) if entries else "",
    )
    value = {
        "format": FORMAT,
        "last": sha256_of(entry.to_dict()),
        "history": [one.to_dict() for one in (*entries, entry)],
    }
    path = champion_path(home)
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):  # of a promotion that was killed; we hold the lock
        leftover.unlink()
    write_atomically(path, json_text(value))
    return entry


def _locked(home: Path) -> filelock.BaseFileLock:
    """A lock that the kernel drops when its holder dies."""
    path = champion_path(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(path.with_suffix(".lock"), timeout=LOCK_TIMEOUT_S)


def _name(ref: ArtefactRef | None) -> str:
    return f"release {ref.identity[:16]}" if ref else "no release"
