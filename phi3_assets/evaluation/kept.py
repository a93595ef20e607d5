"""What a release must keep of the champion, and of the best that a champion was: rules of a promotion, one by one."""

import math
from collections.abc import Sequence

from phi3_assets.core.finding import Finding
from phi3_assets.evaluation.findings import Margins, amount, title
from phi3_assets.evaluation.gain import gain, non_inferior, p_better, p_worse
from phi3_assets.evaluation.side_by_side import CANDIDATE, CHAMPION, SideBySide, best_so_far, gain_on, gains
from phi3_assets.evaluation.slices import slices_of, to_be_learnt


def metric_kept(side: SideBySide, groups: Sequence[int], metric: str, margins: Margins) -> Finding | None:
    """Non-inferiority in one metric; None: no item has it."""
    margin = margins.max_nll_loss if metric == "nll" else margins.max_loss
    best = best_so_far(side, metric, [CHAMPION, *side.earlier])
    told: list[str] = []
    measured: dict[str, float] = {}
    passed = True
    for name in dict.fromkeys((CHAMPION, best)):
        found = gain_on(side, groups, metric, name)
        if found is None:
            return None
        shown = non_inferior(found, margin, margins.alpha)
        passed = passed and shown.passed
        who = "the champion" if name == CHAMPION else "the best champion so far"
        told.append(
            f"{amount(metric, abs(found.mean))} {'better' if found.mean > 0 else 'worse'} than {who}"
            if found.mean
            else f"the same as {who}'s"
        )
        told[-1] += f", and a loss of more than {amount(metric, shown.margin)} {_can(shown.passed)} be ruled out"
        if not shown.is_finest:
            needed = f"; {amount(metric, margin)} would take {shown.items_needed} items" if shown.items_needed else ""
            told[-1] += f" ({found.items} items in {found.groups} groups allow no finer margin{needed})"
        measured |= {"gain": round(found.mean, 6), "most_lost": round(shown.most_lost, 6), "margin": shown.margin}
    return Finding(f"{metric}_is_kept", passed, f"{title(metric)} is {'; '.join(told)}.", measured)


def language_kept(side: SideBySide, most: float) -> Finding:
    """Forgetting, as a ratio of perplexities."""
    best = best_so_far(side, "general_nll", [CHAMPION, *side.earlier])
    nats = side.numbers[CANDIDATE]["general_nll"] - side.numbers[best]["general_nll"]
    return _grown("language_is_kept", "perplexity of general text", math.exp(min(nats, 100.0)), _whose(best), most)


def size_kept(side: SideBySide, most: float) -> Finding:
    """Bytes of the int4 folder."""
    best = best_so_far(side, "bytes", [CHAMPION, *side.earlier])
    ratio = side.numbers[CANDIDATE]["bytes"] / side.numbers[best]["bytes"]
    return _grown("size_is_kept", "size on disk", ratio, _whose(best, "smallest"), most)


def _grown(rule: str, what: str, ratio: float, whose: str, most: float) -> Finding:
    passed = bool(ratio <= most)
    sentence = f"Its {what} is {ratio:.3g} times {whose}; at most {most:.3g} times is allowed."
    return Finding(rule, passed, sentence, {"ratio": round(ratio, 4), "most": most})


def speed_kept(side: SideBySide, least: float) -> Finding:
    """Decoding speed; against the champion alone, for what an earlier one had was of another day."""
    ratio = side.numbers[CANDIDATE]["tokens_per_s"] / side.numbers[CHAMPION]["tokens_per_s"]
    passed = bool(ratio >= least)
    return Finding(
        "speed_is_kept",
        passed,
        f"It writes {ratio:.3g} times as many tokens per second as the champion on the same machine; at least "
        f"{least:.3g} times is asked for.",
        {"ratio": round(ratio, 4), "least": least},
    )


def slices_kept(side: SideBySide, groups: Sequence[int], margins: Margins) -> Finding:
    """What is gained on the whole may be lost on a part."""
    slices = slices_of(side.records, side.known)
    metrics = ("exact_match", "f1")
    lost, measured = [], {}
    for name, places in slices.items():
        for metric in metrics:
            values, _ = gains(side, metric, CHAMPION)
            found = gain([values[place] for place in places], [groups[place] for place in places], shares=True)
            measured[f"{metric}: {name}"] = round(found.mean, 6)
            # Many are looked at: Bonferroni keeps the chance of a false alarm at alpha.
            if -found.mean > margins.max_slice_loss and p_worse(found) <= margins.alpha / (len(slices) * len(metrics)):
                lost.append(f"{name} ({found.items}): {title(metric)} loses {amount(metric, -found.mean)}")
    told = ", ".join(slices) or "the test set has no slice that is large enough"
    return Finding(
        "every_slice_is_kept",
        not lost,
        f"On a slice of the test set more than {amount('f1', margins.max_slice_loss)} is lost: {'; '.join(lost)}."
        if lost
        else f"No slice loses more than {amount('f1', margins.max_slice_loss)} measurably: {told}.",
        measured,
    )


def slices_learnt(side: SideBySide, groups: Sequence[int], margins: Margins) -> Finding:
    """Style is learnt of any answers, also of shuffled ones; a slice of those would pass by its likelihood.

    Asked of slices that hold items new to the champion: with the others it became champion.
    """
    rule = "every_slice_is_learnt"
    if not margins.learnt_answers:
        return Finding(rule, True, "The recipe does not ask for it (gate_learnt_answers).")
    missing, measured, looked_at = [], {}, []
    for name, places in slices_of(side.records, side.known).items():
        values = [side.records[place]["variants"][CANDIDATE]["preference"] for place in places]
        is_new = any(side.records[place]["id"] not in side.known for place in places)
        if is_new and to_be_learnt(name) and None not in values:
            found = gain(values, [groups[place] for place in places])
            measured[name] = round(found.mean, 6)
            looked_at.append(name)
            if p_better(found) > margins.alpha:
                missing.append(f"{name} ({found.items}): by {found.mean:+.3f} nats per token")
    return Finding(
        rule,
        not missing,
        "The right answer is not measurably preferred to that of another question on a slice of the test set, so its "
        f"questions and answers may not belong together: {'; '.join(missing)}."
        if missing
        else f"Right answers are preferred on each slice with new items: {', '.join(looked_at) or 'there is none'}.",
        measured,
    )


def _whose(name: str, what: str = "best") -> str:
    return "the champion's" if name == CHAMPION else f"the {what} champion's so far"


def _can(passed: bool) -> str:
    return "can" if passed else "cannot"
