"""What changed since the champion: two evaluations and what they were made of, side by side, as a page and as Markdown.

It belongs to a decision and not to an evaluation: an eval_report is made of its inputs alone, and the champion is not
one of them. The page stands beside the record of the decision.
"""

import html
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import Manifest
from phi3_assets.evaluation.gate import Decision
from phi3_assets.evaluation.groups import groups_of
from phi3_assets.evaluation.present import COLUMNS, Column
from phi3_assets.evaluation.slices import slices_of
from phi3_assets.evaluation.statistics import COMPARED, Comparison, compare, item_values, mean_tokens

Record = Mapping[str, Any]
SHOWN_ITEMS = 8  # of the gained ones, and of the lost ones
F1_STEP = 0.2  # an answer that moved by less is not called gained or lost, unless it became or was the reference
ABSENT = "-"  # a recipe field or library that there was not


@dataclass(frozen=True)
class Side:
    """One of the two releases.

    Attributes:
        records: What its int4 model made of each item of the comparison, as variant int4.
        manifests: Of the artefacts it was made of, by name; those that are gone are missing.
        rows: Ids of its training rows, which follow from their content; None if they are gone.
        numbers: All numbers of its int4 model, measured beside the other's.
    """

    records: Sequence[Record]
    manifests: Mapping[str, Manifest]
    rows: Collection[str] | None
    numbers: Mapping[str, float | None]

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
        items: Questions that were put to both.
        new_items: Those of them that the champion's own report was not made on.
        scores: (title, champion's, candidate's, difference with its interval or "") for each metric.
        recipe: (field, champion's, candidate's) for each recipe field that differs.
        libraries: The same for library versions.
        code: The same for steps whose code version differs.
        data: (what, how it changed).
        slices: (slice, its items, exact match of the champion, of the candidate, difference in token F1 with its
            interval).
        gained: (candidate's, champion's) record of items whose answer became better, most first.
        lost: The same for those whose answer became worse.
    """

    items: int
    new_items: int
    scores: list[tuple[str, str, str, str]]
    recipe: list[tuple[str, str, str]]
    libraries: list[tuple[str, str, str]]
    code: list[tuple[str, str, str]]
    data: list[tuple[str, str]]
    slices: list[tuple[str, str, str, str, str]]
    gained: list[tuple[Record, Record]]
    lost: list[tuple[Record, Record]]


def find_changes(ours: Side, champion: Side, known: Collection[str]) -> Changes:
    """Compare a candidate with the champion, item by item of one comparison.

    Args:
        ours: The candidate.
        champion: The champion, on the same items in the same order.
        known: Ids of the items that the champion's own report was made on.
    """
    pairs = list(zip(ours.records, champion.records, strict=True))
    moved = sorted(((_moved(*pair), pair) for pair in pairs), key=lambda one: (-abs(one[0]), one[1][0]["id"]))
    data = [("training rows", _rows(ours.rows, champion.rows)), ("test set", _test_set(ours, known))]
    # What one side was made of cannot be compared if the other's is gone: dozens of lines would say no more than this.
    standing = ours.manifests.keys() & champion.manifests.keys()
    if unknown := sorted(ours.manifests.keys() ^ champion.manifests.keys()):
        data.append(("not compared", f"recipe and versions of {', '.join(unknown)}: one of the two is gone"))
    after, before = (
        replace(side, manifests={name: side.manifests[name] for name in standing}) for side in (ours, champion)
    )
    return Changes(
        items=len(ours.records),
        new_items=sum(record["id"] not in known for record in ours.records),
        scores=_scores(ours, champion),
        recipe=_differing(before.recipe, after.recipe),
        libraries=_differing(before.libraries, after.libraries),
        code=_differing(before.code_versions, after.code_versions),
        data=data,
        slices=_slices(ours, champion, known),
        gained=[pair for amount, pair in moved if amount > 0],
        lost=[pair for amount, pair in moved if amount < 0],
    )


def _scores(ours: Side, champion: Side) -> list[tuple[str, str, str, str]]:
    compared = {metric: _compare(metric, ours.records, champion.records) for metric in COMPARED}

    def text(column: Column, side: Side) -> str:
        value = side.numbers.get(column.metric)
        return "-" if value is None else column.text(value)

    def difference(column: Column) -> str:
        found = compared.get(column.metric)
        return _difference(found) if found else ""

    rows = [(column.title, text(column, champion), text(column, ours), difference(column)) for column in COLUMNS]
    return [row for row in rows if row[1:3] != ("-", "-")]


def _compare(metric: str, ours: Sequence[Record], theirs: Sequence[Record]) -> Comparison:
    unit = mean_tokens(ours)
    own, others = (item_values(records, "int4", metric, unit) for records in (ours, theirs))
    return compare(metric, "int4", "champion", own, others, groups_of(ours))


def _difference(found: Comparison) -> str:
    return f"{found.difference:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def _slices(ours: Side, champion: Side, known: Collection[str]) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for name, places in slices_of(ours.records, known).items():
        own, others = ([side.records[place] for place in places] for side in (ours, champion))
        right = [sum(record["variants"]["int4"]["exact_match"] for record in one) / len(one) for one in (others, own)]
        found = _difference(_compare("f1", own, others))
        rows.append((name, str(len(places)), f"{right[0]:.1%}", f"{right[1]:.1%}", found))
    return rows


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


def _test_set(ours: Side, known: Collection[str]) -> str:
    ids = {record["id"] for record in ours.records}
    if ids == set(known):
        return f"the same {len(ids)} items"
    return f"{len(ids)} items now, {len(ids - set(known))} of them new since the champion, {len(set(known) - ids)} gone"


def markdown(changes: Changes) -> str:
    """The changes for the Dagster UI; no text of the user's."""
    lines = ["| int4 | champion | this release | difference (95 % interval) |", "| :-- | --: | --: | --: |"]
    lines += ["| " + " | ".join(row) + " |" for row in changes.scores]
    if changes.slices:
        lines += ["", "| slice | items | exact match, champion | this release | token F1 (95 % interval) |"]
        lines += ["| :-- | --: | --: | --: | --: |"]
        # A file of the user's may have any name, also one that is HTML.
        lines += [
            "| " + " | ".join(html.escape(cell).replace("|", "\\|") for cell in row) + " |" for row in changes.slices
        ]
    lines += ["", f"Answers: {len(changes.gained)} became better, {len(changes.lost)} worse.", ""]
    lines += [f"- {what}: {how}" for what, how in changes.data]
    for title, rows in (("recipe", changes.recipe), ("library", changes.libraries), ("code of step", changes.code)):
        lines += [f"- {title} `{name}`: `{before}` to `{after}`" for name, before, after in rows]
    return "\n".join(lines)


def page(title: str, about: str, decision: Decision, links: Mapping[str, str], changes: Changes | None = None) -> str:
    """A decision as one self-contained HTML page.

    Args:
        title: The outcome.
        about: What was decided about, by identity.
        decision: What the gate said.
        links: Where to read on, as href by text.
        changes: What changed since the champion; None: nothing was put beside it.
    """
    from phi3_assets.evaluation.report import templates

    tables = changes and [
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
            title=title,
            about=about,
            changes=changes,
            decision=decision,
            tables=tables,
            links=links,
            shown_items=SHOWN_ITEMS,
        )
    )


def page_name(candidate_identity: str, champion_identity: str) -> str:
    """File name of a decision's page; the same two releases give the same name. "" where there was no champion."""
    beside = f"against-{champion_identity[:SHORT]}" if champion_identity else "first"
    return f"{candidate_identity[:SHORT]}-{beside}.html"


def unfit_page_name(report_identity: str) -> str:
    """File name of the page of a model that was refused before there was a release, by its report."""
    return f"{report_identity[:SHORT]}-not-fit.html"
