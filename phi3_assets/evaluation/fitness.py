"""Is this model fit to be released? The gate's rules that look at the model alone, each a blocking asset check.

Pure functions of scores. When in doubt the answer is no: a number that is missing or not finite, or a test set too
small refuses.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.evaluation import VARIANTS
from phi3_assets.evaluation.findings import Thresholds, amount, difference, numbers, title
from phi3_assets.evaluation.gain import gain, non_inferior, p_better
from phi3_assets.evaluation.groups import groups_of
from phi3_assets.evaluation.slices import sources_of
from phi3_assets.evaluation.statistics import COMPARED, compare, item_values

NEEDED_METRICS = ("nll", "exact_match", "f1", "stop_rate", "general_nll")
# Each rule and what it asks for, in the order in which they are judged; their names are those of the asset checks.
RULES = {
    "every_score_is_there": "All four variants have finite numbers, over the test set and on each item.",
    "test_set_is_large_enough": "The test set has enough items for a decision to rest on.",
    "every_variant_beats_base": "Adapter, merged and int4 each find the held-out answers more likely than base does.",
    "int4_is_measurably_better": "int4 is better than base by more than chance would bring (paired permutation test).",
    "answers_were_learnt": "int4 prefers the right answer to that of another question: more than base, in each file.",
    "int4_keeps_the_gain": "int4 keeps enough of the likelihood that fine-tuning gained.",
    "int4_answers_like_merged": "int4 loses no more exact match and F1 against merged than the recipe allows.",
    "answers_end_by_themselves": "int4 ends its answers by itself.",
    "devices_ask_as_trained": "A device's own tokenizer and chat template build the prompts of the training.",
    "general_language_is_kept": "Fine-tuning and int4 did not make the model forget ordinary language.",
}


def judge_fitness(
    scores: Mapping[str, Any], records: Sequence[Mapping[str, Any]], thresholds: Thresholds
) -> list[Finding]:
    """A finding for each rule, in their order; of an incomplete evaluation the first alone.

    Args:
        scores: What scores.json holds.
        records: What items.jsonl holds.
        thresholds: The recipe's.
    """
    complete = _complete(scores, records)
    if not complete.passed:
        return [complete]
    return [
        complete,
        _enough_items(len(records), scores.get("test_set_items", len(records)), thresholds.min_items),
        _every_variant_beats_base(scores),
        _measurably_better(records, thresholds),
        _answers_learnt(records, thresholds),
        _keeps_gain(scores, thresholds.min_gain_kept),
        _answers_like_merged(records, thresholds),
        _stops(scores, thresholds.min_stop_rate),
        _asks_as_trained(scores),
        _remembers(scores, thresholds.max_general_perplexity_ratio),
    ]


def _complete(scores: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Finding:
    def refuse(why: str) -> Finding:
        return Finding("every_score_is_there", False, f"{why}; make eval_report anew.")

    if len(records) != scores.get("items") or not records:
        return refuse(f"scores.json speaks of {scores.get('items')} items, items.jsonl holds {len(records)}")
    for variant in VARIANTS:
        numbers = scores.get("variants", {}).get(variant)
        if numbers is None:
            return refuse(f"variant {variant} was not scored")
        for metric in NEEDED_METRICS:
            if not _finite(numbers.get(metric)):
                return refuse(f"{metric} of {variant} is {numbers.get(metric, 'missing')}, not a number")
        for record in records:
            own = record["variants"].get(variant)
            if own is None:
                return refuse(f"variant {variant} has no score for item {record['id']}")
            for metric in COMPARED:
                if not _finite(own.get(metric)):
                    return refuse(
                        f"{metric} of {variant} for item {record['id']} is {own.get(metric, 'missing')}, not a number"
                    )
    sentence = f"All {len(VARIANTS)} variants have all numbers for {len(records)} items."
    return Finding("every_score_is_there", True, sentence)


def _enough_items(items: int, of: int, least: int) -> Finding:
    passed = items >= least
    needed = f"at least {least} are needed." if passed else f"a decision needs at least {least}; add data."
    return Finding(
        "test_set_is_large_enough",
        passed,
        f"The test set has {of} items,{f' of which {items} are asked;' if items < of else ''} {needed}",
        {"items": items, "least": least},
    )


def _every_variant_beats_base(scores: Mapping[str, Any]) -> Finding:
    nll = {name: float(scores["variants"][name]["nll"]) for name in VARIANTS}
    worse = [name for name in VARIANTS[1:] if not nll[name] < nll["base"]]
    told = ", ".join(f"{name} {nll[name]:.3f}" for name in worse or VARIANTS[1:])
    return Finding(
        "every_variant_beats_base",
        not worse,
        f"The held-out answers are {'not ' if worse else ''}likelier than to base, whose NLL is {nll['base']:.3f}: "
        f"{told}.",
        {f"nll_{name}": value for name, value in nll.items()},
    )


def _measurably_better(records: Sequence[Mapping[str, Any]], thresholds: Thresholds) -> Finding:
    metric = thresholds.metric
    ours, theirs = (item_values(records, variant, metric) for variant in ("int4", "base"))
    found = compare(metric, "int4", "base", ours, theirs, groups_of(records))
    passed = found.p_better <= thresholds.alpha
    return Finding(
        "int4_is_measurably_better",
        passed,
        f"int4 is {'' if passed else 'not '}measurably better than base: {title(metric)} differs by "
        f"{difference(found, thresholds.alpha)}.",
        numbers(found),
    )


def _answers_learnt(records: Sequence[Mapping[str, Any]], thresholds: Thresholds) -> Finding:
    """Style alone makes any answer likelier than base finds it; what is asked here is that the right one gains most.

    On the whole, and of each file of the dataset, or one whose answers were shuffled would hide among the others.
    """
    rule = "answers_were_learnt"
    if not thresholds.learnt_answers:
        return Finding(rule, True, "The recipe does not ask for it (gate_learnt_answers).")
    values = {name: [record["variants"][name].get("preference") for record in records] for name in ("int4", "base")}
    if not all(_finite(value) for one in values.values() for value in one):
        return Finding(
            rule,
            False,
            "All test answers are the same, so it cannot be told whether answers were learnt; add data, or set "
            "gate_learnt_answers to false if style is all that is to be learnt.",
        )
    groups = groups_of(records)
    found = compare("preference", "int4", "base", values["int4"], values["base"], groups)
    passed = found.p_better <= thresholds.alpha
    missing = []
    for name, places in sources_of(records).items():
        of_file = gain([values["int4"][place] for place in places], [groups[place] for place in places])
        if p_better(of_file) > thresholds.alpha:
            missing.append(f"{name} ({of_file.items} items, by {of_file.mean:+.3f} nats per token)")
    if passed and missing:
        return Finding(
            rule,
            False,
            "int4 does not measurably prefer the right answer to that of another question on a file of the dataset, so "
            f"its questions and answers may not belong together: {'; '.join(missing)}.",
            numbers(found),
        )
    return Finding(
        rule,
        passed,
        f"int4 prefers the right answer to that of another question {'' if passed else 'not '}measurably more than "
        f"base does: by {found.difference:+.3f} nats per token (p = {found.p_better:.4f}, limit {thresholds.alpha})"
        + ("." if passed else "; questions and answers of the training rows may not belong together."),
        numbers(found),
    )


def _keeps_gain(scores: Mapping[str, Any], least: float) -> Finding:
    rule = "int4_keeps_the_gain"
    kept = scores.get("int4_gain_kept")
    if kept is None or not _finite(kept):
        return Finding(rule, False, "Fine-tuning gained no likelihood over base, so int4 has none to keep.")
    passed = bool(kept >= least)
    return Finding(
        rule,
        passed,
        f"int4 keeps {kept:.1%} of the likelihood that fine-tuning gained, "
        f"{'at least' if passed else 'less than the'} {least:.1%} {'are' if passed else 'that is'} needed.",
        {"kept": kept, "least": least},
    )


def _answers_like_merged(records: Sequence[Mapping[str, Any]], thresholds: Thresholds) -> Finding:
    """Likelihood can be kept where answers are not: 98 % of the gain, and 76 % of the answers, were seen together."""
    groups = groups_of(records)
    told, passed, measured = [], True, {}
    for metric in ("exact_match", "f1"):
        pairs = zip(item_values(records, "int4", metric), item_values(records, "merged", metric), strict=True)
        found = gain([ours - theirs for ours, theirs in pairs], groups, shares=True)
        shown = non_inferior(found, thresholds.max_int4_loss, thresholds.alpha)
        passed = passed and shown.passed
        measured[f"{metric}_lost"] = round(-found.mean, 6)
        told.append(
            f"{title(metric)} {amount(metric, found.mean)} (a loss of more than {amount(metric, shown.margin)} "
            f"{'can' if shown.passed else 'cannot'} be ruled out"
            + (")" if shown.is_finest else f"; {found.items} items in {found.groups} groups allow no finer margin)")
        )
    return Finding(
        "int4_answers_like_merged",
        passed,
        f"int4 against merged: {', '.join(told)}. At most {amount('f1', thresholds.max_int4_loss)} may be lost"
        + ("." if passed else "; quantise more exactly: int4_algorithm gptq, a smaller int4_block_size, int8_modules."),
        {**measured, "most": thresholds.max_int4_loss},
    )


def _stops(scores: Mapping[str, Any], least: float) -> Finding:
    rate = scores["variants"]["int4"]["stop_rate"]
    passed = bool(rate >= least)
    return Finding(
        "answers_end_by_themselves",
        passed,
        f"{rate:.1%} of int4's answers end by themselves, {'' if passed else 'but '}at least {least:.1%} must.",
        {"stop_rate": rate, "least": least},
    )


def _asks_as_trained(scores: Mapping[str, Any]) -> Finding:
    rule = "devices_ask_as_trained"
    share = scores["variants"]["int4"].get("prompts_as_trained")
    if share is None or not _finite(share):
        return Finding(rule, False, "It was not measured whether a device builds prompts as in training.")
    if share < 1:
        return Finding(
            rule,
            False,
            f"A device builds only {share:.1%} of the prompts as in training: tokenizer or chat template in the int4 "
            "folder differ from the corpus.",
            {"share": share},
        )
    return Finding(rule, True, "A device builds all prompts as in training.", {"share": share})


def _remembers(scores: Mapping[str, Any], most: float) -> Finding:
    """A ratio of perplexities is a difference in nats; a ratio of NLLs would allow more the worse base already is."""
    own, base = (scores["variants"][name]["general_nll"] for name in ("int4", "base"))
    # No text is so surprising that the ratio is of interest beyond this, and exp has an end.
    ratio = math.exp(min(own - base, 100.0))
    passed = bool(ratio <= most)
    return Finding(
        "general_language_is_kept",
        passed,
        f"int4's NLL of general text is {own:.3f}, {own - base:+.3f} nats from base's {base:.3f}: {ratio:.3g} times "
        f"its perplexity; at most {most:.3g} times is allowed"
        f"{'' if passed else ', so it forgot too much: set replay_share (0.1, or more than it is), or train less'}.",
        {"ratio": round(ratio, 4), "nats": round(own - base, 6), "most": most},
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
