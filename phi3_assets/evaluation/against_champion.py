"""Is this release to replace the champion? The rules that decide a promotion.

Candidate and champion are scored side by side, by one process on one machine, on the questions that are asked now. The
candidate must be better in one metric, by more than items and trainings vary; and in all others a loss beyond a margin
must be ruled out, against the champion and against the best that a champion was. The champion alone would not do:
each of ten releases could lose a little, and each would be compared with one that had lost already. The first champion
alone would not do either: what was gained since could be lost again.
"""

import math
from collections.abc import Sequence

from phi3_assets.core.finding import Finding
from phi3_assets.evaluation.findings import Margins, amount, title
from phi3_assets.evaluation.gain import least_visible, p_better
from phi3_assets.evaluation.groups import groups_of
from phi3_assets.evaluation.kept import (
    language_kept,
    metric_kept,
    size_kept,
    slices_kept,
    slices_learnt,
    speed_kept,
)
from phi3_assets.evaluation.looks import alpha_of
from phi3_assets.evaluation.side_by_side import CHAMPION, SideBySide, gain_on

KEPT_METRICS = ("exact_match", "f1", "nll", "stop_rate", "json_valid")
RULES = (
    "scored_side_by_side",
    *(f"{metric}_is_kept" for metric in KEPT_METRICS),
    "language_is_kept",
    "size_is_kept",
    "speed_is_kept",
    "every_slice_is_kept",
    "every_slice_is_learnt",
    "better_than_champion",
)


def judge_against(side: SideBySide, margins: Margins) -> list[Finding]:
    """A finding for each rule; of a test set that is too small the first alone."""
    groups = groups_of(side.records)
    together = _together(side, groups, margins)
    if not together.passed:
        return [together]
    kept = [metric for metric in KEPT_METRICS if metric != margins.metric]
    return [
        together,
        *(found for metric in kept if (found := metric_kept(side, groups, metric, margins)) is not None),
        language_kept(side, margins.max_perplexity_growth),
        size_kept(side, margins.max_bytes_growth),
        speed_kept(side, margins.min_speed_kept),
        slices_kept(side, groups, margins),
        slices_learnt(side, groups, margins),
        _better(side, groups, margins),
    ]


def _together(side: SideBySide, groups: Sequence[int], margins: Margins) -> Finding:
    items, count = len(side.records), len(set(groups))
    new = sum(record["id"] not in side.known for record in side.records)
    if items < margins.min_items or count < 2:
        return Finding(
            "scored_side_by_side",
            False,
            f"The test set has {items} items in {count} groups, a comparison needs at least {margins.min_items} in "
            "two; add data.",
            {"items": items, "groups": count},
        )
    found = gain_on(side, groups, margins.metric, CHAMPION)
    assert found is not None
    error = math.sqrt(found.error**2 + 2 * side.noise.deviation**2)
    visible = max(margins.min_effect, least_visible(error, count, alpha_of(margins.alpha, side.look)))
    noise = (
        f"trainings on unchanged data differ by {amount(margins.metric, side.noise.deviation)} (standard deviation, "
        + (f"seen on {side.noise.retrains} retrains)" if side.noise.retrains else "as the recipe states)")
    )
    return Finding(
        "scored_side_by_side",
        True,
        f"{items} items in {count} groups, {new} of them new since the champion, were put to both on one machine. "
        f"{title(margins.metric)} must differ by {amount(margins.metric, visible)} to be found better four times in "
        f"five; {noise}.",
        {"items": items, "groups": count, "new": new, "visible": round(visible, 6)},
    )


def _better(side: SideBySide, groups: Sequence[int], margins: Margins) -> Finding:
    found = gain_on(side, groups, margins.metric, CHAMPION)
    assert found is not None
    p = p_better(found, side.noise.deviation, side.noise.freedom)
    alpha = alpha_of(margins.alpha, side.look)
    passed = p <= alpha and found.mean >= margins.min_effect
    least = (
        f"at least {amount(margins.metric, margins.min_effect)} and p at most {alpha:.2g} are asked for at look "
        f"{side.look} at this test set"
    )
    return Finding(
        "better_than_champion",
        passed,
        f"{title(margins.metric)} is {'' if passed else 'not '}measurably better than the champion's: by "
        f"{amount(margins.metric, found.mean)} (p = {p:.4f}; {least}).",
        {"gain": round(found.mean, 6), "error": round(found.error, 6), "p": round(p, 6), "least": margins.min_effect},
    )
