"""What changed since the champion: two evaluations and what they were made of, side by side, as a page and as Markdown.

It belongs to a decision and not to an evaluation: an eval_report is made of its inputs alone, and the champion is not
one of them. The page stands beside the record of the decision.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import Manifest
from phi3_assets.evaluation.against_champion import common_items, compare_with_champion
from phi3_assets.evaluation.gate import Decision
from phi3_assets.evaluation.present import COLUMNS, Column
from phi3_assets.evaluation.statistics import Comparison

Record = Mapping[str, Any]
SHOWN_ITEMS = 8  # of the gained ones, and of the lost ones
F1_STEP = 0.2  # an answer that moved by less is not called gained or lost, unless it became or was the reference
ABSENT = "-"  # a recipe field or library that there was not


@dataclass(frozen=True)
class Side:
    """One of the two releases.

    Attributes:
        records: What items.jsonl of its eval_report holds.
        manifests: Of the artefacts it was made of, by name; those that are gone are missing.
        rows: Ids of its training rows, which follow from their content; None if they are gone.
    """

    records: Sequence[Record]
    manifests: Mapping[str, Manifest]
    rows: Collection[str] | None

    @property
    def numbers(self) -> Mapping[str, float | None]:
        """All numbers of its int4 model."""
        report = self.manifests.get("eval_report")
        return report.metrics["variants"]["int4"] if report else {}

    @property
    def code_versions(self) -> dict[str, str]:
        """Code version of each step."""
        return {name: one.call.code_version for name, one in self.manifests.items()}

    @property
    def recipe(self) -> dict[str, Any]:
        """Recipe fields of all steps."""
        return {name: value for one in self.manifests.values() for name, value in one.call.params.items()}

    @property
    def libraries(self) -> dict[str, str]:
        """Library versions of all steps; several where a step was reused from before an upgrade."""
        found: dict[str, set[str]] = {}
        for one in self.manifests.values():
            for name, version in one.call.libraries.items():
                found.setdefault(name, set()).add(version)
        return {name: ", ".join(sorted(versions)) for name, versions in found.items()}


@dataclass(frozen=True)
class Changes:
    """The difference of two releases; in each pair or triple the champion's value comes before the candidate's.

    Attributes:
        scores: (title, champion's, candidate's, difference with its interval or "") for each metric.
        recipe: (field, champion's, candidate's) for each recipe field that differs.
        libraries: The same for library versions.
        code: The same for steps whose code version differs.
        data: (what, how it changed).
        gained: (candidate's, champion's) record of items whose answer became better, most first.
        lost: The same for those whose answer became worse.
    """

    scores: list[tuple[str, str, str, str]]
    recipe: list[tuple[str, str, str]]
    libraries: list[tuple[str, str, str]]
    code: list[tuple[str, str, str]]
    data: list[tuple[str, str]]
    gained: list[tuple[Record, Record]]
    lost: list[tuple[Record, Record]]


def find_changes(ours: Side, champion: Side) -> Changes:
    """Compare a candidate with the champion."""
    pairs = common_items(ours.records, champion.records)
    compared = compare_with_champion(pairs) if pairs else {}
    moved = sorted(((_moved(*pair), pair) for pair in pairs), key=lambda one: (-abs(one[0]), one[1][0]["id"]))
    data = [("training rows", _rows(ours.rows, champion.rows)), ("test set", _test_set(ours, champion, len(pairs)))]
    # What one side was made of cannot be compared if the other's is gone: dozens of lines would say no more than this.
    known = ours.manifests.keys() & champion.manifests.keys()
    if unknown := sorted(ours.manifests.keys() ^ champion.manifests.keys()):
        data.append(("not compared", f"recipe and versions of {', '.join(unknown)}: one of the two is gone"))
    after, before = (
        replace(side, manifests={name: side.manifests[name] for name in known}) for side in (ours, champion)
    )
    return Changes(
        scores=_scores(ours, champion, compared),
        recipe=_differing(before.recipe, after.recipe),
        libraries=_differing(before.libraries, after.libraries),
        code=_differing(before.code_versions, after.code_versions),
        data=data,
        gained=[pair for amount, pair in moved if amount > 0],
        lost=[pair for amount, pair in moved if amount < 0],
    )


def _scores(ours: Side, champion: Side, compared: Mapping[str, Comparison]) -> list[tuple[str, str, str, str]]:
    def text(column: Column, side: Side) -> str:
        value = side.numbers.get(column.metric)
        return "-" if value is None else column.text(value)

    def difference(column: Column) -> str:
        found = compared.get(column.metric)
        if found is None:
            return ""
        return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"

    rows = [(column.title, text(column, champion), text(column, ours), difference(column)) for column in COLUMNS]
    return [row for row in rows if row[1:3] != ("-", "-")]


def _moved(own: Record, champion: Record) -> float:
    """By how much token F1 of an answer moved; 0 when that is not worth showing."""
    after, before = own["variants"]["int4"], champion["variants"]["int4"]
    amount = float(after["f1"] - before["f1"])
    flipped = float(after["exact_match"] - before["exact_match"])
    if abs(amount) >= F1_STEP:
        return amount
    return flipped


def _differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return [
        (name, text(before.get(name, ABSENT)), text(after.get(name, ABSENT)))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _rows(ours: Collection[str] | None, champion: Collection[str] | None) -> str:
    if ours is None or champion is None:
        return f"not known: the raw_dataset of {'this release' if ours is None else 'the champion'} is gone"
    new, old = set(ours), set(champion)
    return f"{len(old)} before, {len(new)} now: {len(new - old)} added, {len(old - new)} removed"


def _test_set(ours: Side, champion: Side, shared: int) -> str:
    before, now = len(champion.records), len(ours.records)
    if before == now == shared:
        return f"the same {now} items"
    return f"{before} items before, {now} now, {shared} in both"


def markdown(changes: Changes) -> str:
    """The changes for the Dagster UI; no text of the user's."""
    lines = ["| int4 | champion | this release | difference (95 % interval) |", "| :-- | --: | --: | --: |"]
    lines += ["| " + " | ".join(row) + " |" for row in changes.scores]
    lines += ["", f"Answers: {len(changes.gained)} became better, {len(changes.lost)} worse.", ""]
    lines += [f"- {what}: {how}" for what, how in changes.data]
    for title, rows in (("recipe", changes.recipe), ("library", changes.libraries), ("code of step", changes.code)):
        lines += [f"- {title} `{name}`: `{before}` to `{after}`" for name, before, after in rows]
    return "\n".join(lines)


def page(changes: Changes, decision: Decision, links: Mapping[str, str]) -> str:
    """The changes as one self-contained HTML page.

    Args:
        changes: What to show.
        decision: What the gate made of it.
        links: Where to read on, as href by text.
    """
    from phi3_assets.evaluation.report import templates

    tables = [
        (title, rows)
        for title, rows in (
            ("Recipe", changes.recipe),
            ("Libraries", changes.libraries),
            ("Code of the steps", changes.code),
        )
        if rows
    ]
    return (
        templates()
        .get_template("changes.html.j2")
        .render(
            changes=changes,
            decision=decision,
            tables=tables,
            links=links,
            gained=changes.gained[:SHOWN_ITEMS],
            lost=changes.lost[:SHOWN_ITEMS],
        )
    )


def page_name(candidate_identity: str, champion_identity: str) -> str:
    """File name of a decision's page; the same two releases give the same name."""
    return f"{candidate_identity[:SHORT]}-against-{champion_identity[:SHORT]}.html"
