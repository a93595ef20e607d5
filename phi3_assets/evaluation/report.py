"""report.html: one self-contained page for people. Numbers and answers in, HTML out; no model runs here."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phi3_assets.evaluation import plots
from phi3_assets.evaluation.present import COLUMNS, COST, LABELS, QUALITY, Column, Variants, shown_columns, table_cells

if TYPE_CHECKING:
    import jinja2

METRIC_TITLES = {column.metric: column.title for column in COLUMNS}
EXAMPLES = 6  # answers shown from each end


def render(
    *,
    scores: Mapping[str, Any],
    table: Mapping[str, Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
    harder: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
    identity: Mapping[str, Any],
) -> str:
    """The page.

    Args:
        scores: What scores.json holds.
        table: Quality, speed and size of each variant.
        records: What items.jsonl holds.
        harder: What harder.jsonl holds; empty: there is none.
        history: Points of the loss curve; may be empty.
        identity: What was evaluated, as (name, text) pairs in groups.
    """
    from markupsafe import Markup

    best, worst = examples(records)
    figures = [Markup(plots.scores_svg(table, scores["intervals"]))]  # noqa: S704 - matplotlib's own output, not a user's text
    small = [Markup(plots.loss_svg(history))] if history else []  # noqa: S704
    small += [Markup(plots.size_svg(table)), Markup(plots.length_svg(records))]  # noqa: S704
    return (
        templates()
        .get_template("report.html.j2")
        .render(
            scores=scores,
            verdict=verdict(table, scores),
            tables=[number_table(table, QUALITY), number_table(table, COST)],
            comparisons=comparison_rows(scores["comparisons"]),
            figures=figures,
            small=small,
            best=best,
            worst=worst,
            harder_table=harder_rows(scores["harder"]) if harder else [],
            harder=first_of_each_kind(harder),
            labels=LABELS,
            identity=identity,
        )
    )


def templates() -> "jinja2.Environment":
    """The pages' templates; they share one style."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("phi3_assets.evaluation", "."),
        autoescape=True,  # answers are what a model says: untrusted text
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def verdict(table: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Any]) -> str:
    """The outcome in three sentences."""
    base, int4 = table["base"], table["int4"]
    text = (
        f"On {scores['items']} questions never trained on, the int4 model answers {int4['exact_match']:.0%} exactly "
        f"(the base model {base['exact_match']:.0%}) and its NLL is {int4['nll']:.2f} against {base['nll']:.2f}."
    )
    kept = scores["int4_gain_kept"]
    if kept is None:
        text += " Fine-tuning brought no gain in likelihood."
    else:
        text += f" Quantising kept {kept:.0%} of what fine-tuning gained."
    ratio = math.exp(min(int4["general_nll"] - base["general_nll"], 100.0))
    return f"{text} What it cost: its perplexity of general text is {ratio:.3g} times the base model's."


def harder_rows(harder: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """A row for each kind of harder question: how many, then for each variant answered exactly and preferred."""
    return [
        [
            kind,
            str(numbers["items"]),
            *(f"{one[what]:.0%}" for what in ("exact_match", "preferred") for one in numbers["variants"].values()),
        ]
        for kind, numbers in harder.items()
    ]


def first_of_each_kind(harder: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One example of each kind: the first that int4 does not answer exactly, else the first."""
    shown: dict[str, Mapping[str, Any]] = {}
    for record in sorted(harder, key=lambda one: one["variants"]["int4"]["exact_match"]):
        shown.setdefault(record["kind"], record)
    return list(shown.values())


def comparison_rows(comparisons: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Paired comparisons as text, with a verdict that needs no colour."""
    rows = []
    for one in comparisons:
        # Two one-sided tests are looked at; at 0.025 each the row as a whole errs at most once in twenty times.
        better, worse = one["p_better"] <= 0.025, one["p_worse"] <= 0.025
        rows.append(
            {
                "metric": METRIC_TITLES[one["metric"]],
                "pair": f"{LABELS[one['candidate']]} against {LABELS[one['reference']]}",
                "difference": f"{one['difference']:+.3f}",
                "interval": f"{one['low']:+.3f} to {one['high']:+.3f}",
                "p": _p_text(2 * min(one["p_better"], one["p_worse"])),
                "verdict": "better" if better else "worse" if worse else "no measurable difference",
                "needed": "" if one["items_needed"] is None else str(one["items_needed"]),
            }
        )
    return rows


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{min(1.0, p):.3f}"


def number_table(table: Variants, columns: Sequence[Column]) -> dict[str, Any]:
    """A table of the page: columns, cells as text and which of them are best."""
    shown = shown_columns(table, columns)
    head, body = table_cells(table, columns)
    return {"columns": shown, "head": head, "body": body, "best": best_cells(table, shown)}


def best_cells(table: Mapping[str, Mapping[str, Any]], columns: Sequence[Column]) -> set[tuple[int, int]]:
    """(row, column) of the best number of each column that has a better and a worse; ties all count."""
    found = set()
    for place, column in enumerate(columns, 1):
        values = [numbers.get(column.metric) for numbers in table.values()]
        known = [value for value in values if value is not None]
        if column.better and known and len(set(known)) > 1:
            best = max(known) if column.better > 0 else min(known)
            found |= {(row, place) for row, value in enumerate(values) if value == best}
    return found


def examples(
    records: Sequence[Mapping[str, Any]],
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The records at which int4 does best and worst (token F1, then likelihood)."""

    def rank(record: Mapping[str, Any]) -> tuple[float, float, str]:
        own = record["variants"]["int4"]
        return -own["f1"], own["nll"], record["id"]

    ranked = sorted(records, key=rank)
    half = min(EXAMPLES, len(ranked) // 2)
    return ranked[: half or 1], ranked[len(ranked) - half :][::-1]
