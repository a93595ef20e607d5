"""Is this model better than the champion? The rules that decide a promotion, on the items both were scored on."""

from collections.abc import Mapping, Sequence
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.evaluation.findings import Thresholds, difference, numbers, title
from phi3_assets.evaluation.statistics import COMPARED, Comparison, compare, item_values, mean_tokens

Record = Mapping[str, Any]
# Two test sets count as the same one grown if nearly all of the champion's items are still in it.
MIN_SHARED = 0.9
RULES = ("same_test_set", "not_worse_than_champion", "better_than_champion")


def judge_against(records: Sequence[Record], champion: Sequence[Record], thresholds: Thresholds) -> list[Finding]:
    """A finding for each rule; of two test sets that differ the first alone.

    Args:
        records: What the candidate's items.jsonl holds.
        champion: What the champion's holds.
        thresholds: The recipe's.
    """
    pairs = common_items(records, champion)
    share = len(pairs) / len(champion) if champion else 0.0
    if share < MIN_SHARED or len(pairs) < thresholds.min_items:
        return [
            Finding(
                "same_test_set",
                False,
                f"The champion was scored on another test set: {len(pairs)} of its {len(champion)} items are in this "
                "one; score the champion on this test set, or go back to its data.",
                {"items": len(pairs), "share": share},
            )
        ]
    found = compare_with_champion(pairs)
    return [
        Finding(
            "same_test_set",
            True,
            f"{len(pairs)} items were put to both, {share:.0%} of the champion's.",
            {"items": len(pairs), "share": share},
        ),
        _not_worse(found, thresholds.alpha),
        _better(found[thresholds.metric], thresholds.alpha),
    ]


def common_items(records: Sequence[Record], champion: Sequence[Record]) -> list[tuple[Record, Record]]:
    """(candidate's, champion's) record of each item that is in both: the same question with the same reference."""
    theirs = {_key(record): record for record in champion}
    return [(record, theirs[_key(record)]) for record in records if _key(record) in theirs]


def compare_with_champion(pairs: Sequence[tuple[Record, Record]]) -> dict[str, Comparison]:
    """int4 of both in every compared metric, on the same items and in the same unit."""
    ours, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    unit = mean_tokens(ours)
    return {
        metric: compare(
            metric,
            "int4",
            "champion",
            item_values(ours, "int4", metric, unit),
            item_values(others, "int4", metric, unit),
        )
        for metric in COMPARED
    }


def _not_worse(found: Mapping[str, Comparison], alpha: float) -> Finding:
    # Several metrics are looked at: Bonferroni keeps the chance of a false alarm at alpha.
    worse = [one for one in found.values() if one.p_worse <= alpha / len(found)]
    told = "; ".join(
        f"{title(one.metric)} is measurably worse than the champion's, by {abs(one.difference):.3f} "
        f"(p = {one.p_worse:.4f})"
        for one in worse
    )
    return Finding(
        "not_worse_than_champion",
        not worse,
        f"{told or 'Nothing is measurably worse than the champion: ' + ', '.join(title(one) for one in found)}.",
        {f"p_{one.metric}": one.p_worse for one in found.values()},
    )


def _better(found: Comparison, alpha: float) -> Finding:
    passed = found.p_better <= alpha
    needed = "" if found.items_needed is None or passed else f"; to tell, {found.items_needed} items would be needed"
    return Finding(
        "better_than_champion",
        passed,
        f"{title(found.metric)} is {'' if passed else 'not '}measurably better than the champion's: it differs by "
        f"{difference(found, alpha)}{needed}.",
        numbers(found),
    )


def _key(record: Record) -> tuple[str, str, str]:
    return str(record["id"]), str(record["question"]), str(record["reference"])
