"""The champion of a product: which release is the one to take, who it replaced and why, and who was refused.

One value of the ledger, `products/<product>/champion.json`, holds every decision; the last one that was neither refusal
nor proposal names the champion. It is changed by write-if-unchanged, so a reader sees the old state or the new one and
of two writers neither is lost. Entries are only ever added, and each carries the hash of the one before, so a history
that was edited is noticed.
"""

from collections.abc import Callable, Mapping
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import Ledger, product_key, read_json, update_json
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.release.history import Entry, following, from_json, once, succession, to_json
from phi3_assets.release.history import present as present_of

Check = Callable[[ArtefactRef], object]
"""Called with an artefact; raises if it is missing or damaged."""


class ChampionChanged(UserError):
    """The champion is another one than the one a decision was made against."""


class Champion:
    """The champion of one product and its history."""

    def __init__(self, ledger: Ledger, product: str) -> None:
        """Read and written through `ledger`."""
        self.product = product
        self._ledger = ledger
        self._key = product_key(product, "champion.json")

    def history(self) -> list[Entry]:
        """All decisions, oldest first; empty when there never was one.

        Raises:
            DamagedArtefact: The value is not JSON, of another format, or was edited.
        """
        return from_json(read_json(self._ledger, self._key), self._ledger.where(self._key))

    def present(self) -> Entry | None:
        """The entry that made the present champion, or None."""
        return present_of(self.history())

    def promote(
        self,
        release: ArtefactRef,
        report: ArtefactRef,
        decision: Mapping[str, Any],
        *,
        judged_against: ArtefactRef | None,
        check: Check,
    ) -> Entry:
        """Make a release the champion; promoting the present champion again changes nothing.

        Args:
            release: The release_bundle.
            report: The eval_report it was judged by.
            decision: The gate's, as a dictionary; must say promote.
            judged_against: The champion's release at the time of the decision, None if there was none.
            check: Called with both artefacts.

        Raises:
            ChampionChanged: Another release was promoted meanwhile, so the decision no longer says anything.
            UserError: The decision is not to promote.
            DamagedArtefact: From `check`.
        """
        if not decision.get("promote"):
            raise UserError(f"The gate decided against it. {decision.get('sentence', '')}".strip())
        check(release)
        check(report)

        def change(entries: list[Entry]) -> Entry:
            present = present_of(entries)
            now = present.release if present else None
            if present is not None and now == release:
                return present
            _refuse_stale(now, judged_against)
            return following(entries, "promote", release, report, decision)

        return self._append(change)

    def refuse(self, release: ArtefactRef, report: ArtefactRef, decision: Mapping[str, Any]) -> Entry:
        """Record that the gate said no. Said again while nothing else was decided of it, it is recorded once."""
        return self._append(lambda entries: once(entries, "refuse", release, report, decision))

    def propose(
        self,
        release: ArtefactRef,
        report: ArtefactRef,
        decision: Mapping[str, Any],
        *,
        judged_against: ArtefactRef | None,
    ) -> Entry:
        """Record that the gate said yes and that a person is to approve it; see `approve`."""
        against = judged_against.to_dict() if judged_against else None
        kept = {**decision, "judged_against": against}
        return self._append(lambda entries: once(entries, "propose", release, report, kept))

    def proposals(self) -> list[Entry]:
        """What waits for approval, oldest first: proposals of which nothing else was decided since."""
        waiting: dict[ArtefactRef | None, Entry] = {}
        for entry in self.history():
            waiting.pop(entry.release, None)
            if entry.action == "propose":
                waiting[entry.release] = entry
        return list(waiting.values())

    def approve(self, identity: str, reason: str, *, check: Check) -> Entry:
        """Promote a release that was proposed.

        Args:
            identity: Of the release, or how it begins; "": the only one that waits.
            reason: A person's, for the history.
            check: Called with the release and its report.

        Raises:
            UserError: No such proposal, or several.
            ChampionChanged: The champion is another one than the one it was judged against.
        """
        waiting = self.proposals()
        found = [one for one in waiting if one.release is not None and one.release.identity.startswith(identity)]
        if len(found) != 1:
            names = ", ".join(one.release.identity[:SHORT] for one in waiting if one.release) or "none"
            raise UserError(f"Name one release that waits for approval; waiting in {self.product}: {names}.")
        (proposal,) = found
        assert proposal.release is not None
        assert proposal.report is not None
        against = proposal.decision["judged_against"]
        kept = {name: value for name, value in proposal.decision.items() if name != "judged_against"}
        return self.promote(
            proposal.release,
            proposal.report,
            {**kept, "sentence": f"{proposal.sentence} Approved: {reason}", "approved": reason},
            judged_against=ArtefactRef(**against) if against else None,
            check=check,
        )

    def rollback(self, reason: str, *, check: Check) -> Entry:
        """Make the champion before the present one champion again; called twice, it goes back two.

        Args:
            reason: Why, for the history.
            check: Called with the release to go back to.

        Raises:
            UserError: There is none to go back to.
            DamagedArtefact: From `check`.
        """

        def change(entries: list[Entry]) -> Entry:
            line = succession(entries)
            if len(line) < 2:
                raise UserError(
                    "There is no champion before this one to go back to; `phi3 champion history` lists all."
                )
            target = line[-2]
            assert target.release is not None
            check(target.release)
            # What it was made of goes along, and who was best in something, for the next candidate is compared with it.
            carried = ("made_of", "best", "recipe")
            kept: dict[str, Any] = {name: target.decision[name] for name in carried if name in target.decision}
            return following(entries, "rollback", target.release, target.report, {**kept, "sentence": reason})

        return self._append(change)

    def retire(self, reason: str) -> Entry:
        """Have no champion from here on; the next release that is fit becomes it.

        Raises:
            UserError: There is none.
        """

        def change(entries: list[Entry]) -> Entry:
            if present_of(entries) is None:
                raise UserError(f"{self.product} has no champion to retire.")
            return following(entries, "retire", None, None, {"sentence": reason})

        return self._append(change)

    def _append(self, change: Callable[[list[Entry]], Entry]) -> Entry:
        """Write the history with what `change` makes of it: an entry that stands in it already, or the next one."""
        decided: list[Entry] = []

        def write(value: Any | None) -> Any | None:
            entries = from_json(value, self._ledger.where(self._key))
            entry = change(entries)
            decided[:] = [entry]
            if entry in entries:
                return None
            return to_json([*entries, entry])

        update_json(self._ledger, self._key, write)
        return decided[0]


def _refuse_stale(now: ArtefactRef | None, judged_against: ArtefactRef | None) -> None:
    if now != judged_against:
        raise ChampionChanged(
            f"The champion is now {_name(now)}; this decision was made against {_name(judged_against)}. "
            "Materialise champion again."
        )


def _name(ref: ArtefactRef | None) -> str:
    return f"release {ref.identity[:SHORT]}" if ref else "no release"
