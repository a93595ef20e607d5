"""The history of a product's releases: every decision, each with the hash of the one before."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.step import sha256_of

FORMAT = 1
DECISIONS = "decisions"
"""Folder of a product's decision pages in the ledger."""
Action = Literal["promote", "rollback", "retire", "refuse", "propose"]
_WAY_OUT = "Restore it from a backup; releases themselves are untouched, in gen-model/release_bundle."


@dataclass(frozen=True)
class Entry:
    """One decision.

    Attributes:
        number: 1 for the first.
        action: promote; rollback to the champion before; retire, after which there is none; refuse or propose (it waits
            for a person's approval), which leave the champion as it is.
        release: The release_bundle that it is about; None with retire.
        report: The eval_report it was judged by.
        decision: What the gate said (`Decision.to_dict()`), or {"sentence": ...} with a person's reason; "made_of", the
            artefacts of the release by name, "recipe", the recipe's name with what the run replaced
            in it, "training", which training it came from, "test_set", a digest of its
            questions, "comparison", where it was scored beside the champion, "best", int4 models of champions that are
            better in something, and "page", the name of its page, where there are such.
        at: UTC, ISO 8601.
        previous: SHA-256 of the entry before; "" for the first.
    """

    number: int
    action: Action
    release: ArtefactRef | None
    report: ArtefactRef | None
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

    @property
    def sentence(self) -> str:
        """Why."""
        return str(self.decision["sentence"])


def to_json(entries: list[Entry]) -> dict[str, Any]:
    """The ledger's value."""
    return {
        "format": FORMAT,
        "last": sha256_of(entries[-1].to_dict()),
        "history": [one.to_dict() for one in entries],
    }


def from_json(value: Any | None, where: str) -> list[Entry]:
    """Inverse of `to_json`; `where` is how errors name the value's place.

    Raises:
        DamagedArtefact: It is none, of another format, or was edited.
    """
    if value is None:
        return []
    try:
        if value["format"] != FORMAT:
            raise DamagedArtefact(f"{where} has format {value['format']}; this version reads format {FORMAT}.")
        entries = [Entry.from_dict(entry) for entry in value["history"]]
        last = value["last"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DamagedArtefact(f"{where} is damaged ({type(error).__name__}). {_WAY_OUT}") from None
    before = ""
    for number, entry in enumerate(entries, 1):
        if entry.number != number or entry.previous != before:
            raise DamagedArtefact(f"{where} was edited: entry {number} does not follow from the one before. {_WAY_OUT}")
        before = sha256_of(entry.to_dict())
    if last != before:
        raise DamagedArtefact(f"{where} was edited: its last entry is not the one that was written. {_WAY_OUT}")
    return entries


def succession(entries: list[Entry]) -> list[Entry]:
    """The promotions that led to the present champion, without those that were rolled back."""
    line: list[Entry] = []
    for entry in entries:
        if entry.action == "rollback":
            line.pop()
        elif entry.action == "promote":
            line.append(entry)
        elif entry.action == "retire":
            line.clear()
    return line


def present(entries: list[Entry]) -> Entry | None:
    """The entry that made the present champion, or None."""
    decided = next((entry for entry in reversed(entries) if entry.action not in ("refuse", "propose")), None)
    return None if decided is None or decided.action == "retire" else decided


def last_about(entries: Sequence[Entry], release: ArtefactRef) -> Entry | None:
    """The last decision about a release, None where there was none."""
    return next((entry for entry in reversed(entries) if entry.release == release), None)


def status_of(entries: list[Entry], release: ArtefactRef) -> str:
    """What a release is by now, in a word or three."""
    champion, last = present(entries), last_about(entries, release)
    if champion is not None and champion.release == release:
        return "the champion"
    if last is None:
        return "not decided about"
    return {"refuse": "refused", "propose": "waits for approval"}.get(last.action, "an earlier champion")


def once(
    entries: list[Entry], action: Action, release: ArtefactRef, report: ArtefactRef, decision: Mapping[str, Any]
) -> Entry:
    """The next entry; said again while nothing else was decided, the one that said it first."""
    for entry in reversed(entries):
        if entry.action not in ("refuse", "propose"):
            break
        if (entry.action, entry.release, entry.report, entry.decision) == (action, release, report, decision):
            return entry
    return following(entries, action, release, report, decision)


def following(
    entries: list[Entry],
    action: Action,
    release: ArtefactRef | None,
    report: ArtefactRef | None,
    decision: Mapping[str, Any],
) -> Entry:
    """The entry after these."""
    return Entry(
        number=len(entries) + 1,
        action=action,
        release=release,
        report=report,
        decision=dict(decision),
        at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        previous=sha256_of(entries[-1].to_dict()) if entries else "",
    )
