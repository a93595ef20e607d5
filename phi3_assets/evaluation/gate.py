"""The gate: may this model be released, and is it measurably better than the champion?

Pure functions of scores, so that every decision can be made again from what eval_report holds. When in doubt the
answer is no: a number that is missing or not finite, a test set too small or another one than the champion's refuses.
Each finding says why in one sentence.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3_assets.evaluation import VARIANTS
from phi3_assets.evaluation.present import COLUMNS
from phi3_assets.evaluation.statistics import COMPARED, compare, item_values, mean_tokens

NEEDED_METRICS = ("nll", "exact_match", "f1", "stop_rate")
# Two test sets count as the same one grown if nearly all of the champion's items are still in it.
MIN_SHARED = 0.9


@dataclass(frozen=True)
class Thresholds:
    """What the gate asks for; recipe fields of the same names without `gate_`.

    Attributes:
        metric: What has to get better: nll, exact_match or f1.
        alpha: How often a model no better than base, or than the champion, may pass for better. Per decision.
        min_items: Fewest test items a decision may rest on.
        min_gain_kept: Least share of fine-tuning's gain in likelihood that int4 keeps.
        min_stop_rate: Least share of int4's answers that end by themselves.
    """

    metric: str
    alpha: float
    min_items: int
    min_gain_kept: float
    min_stop_rate: float

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> "Thresholds":
        """From recipe fields: gate_metric, gate_alpha, and so on."""
        return cls(**{name: params[f"gate_{name}"] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Finding:
    """One rule, applied.

    Attributes:
        rule: Its name: complete, items, better_than_base, learnt_answers, int4_keeps_gain, stops, prompts,
            same_test_set, not_worse_than_champion, better_than_champion.
        passed: Whether the model complies.
        sentence: Why, in one sentence with the numbers.
    """

    rule: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class Decision:
    """The gate's answer.

    Attributes:
        fit: May be released: all rules that look at the model alone are kept.
        promote: May become the champion: fit, and measurably better than the champion if there is one.
        findings: Every rule that was applied, in order.
    """

    fit: bool
    promote: bool
    findings: tuple[Finding, ...]

    @property
    def sentence(self) -> str:
        """The outcome and, if it is a no, the first reason."""
        refused = [finding.sentence for finding in self.findings if not finding.passed]
        if not self.fit:
            return f"Not fit for release: {refused[0]}"
        if not self.promote:
            return f"Fit for release, but the champion stays: {refused[0]}"
        if self.findings[-1].rule == "prompts":  # nothing was compared with a champion
            return "Promoted: it is fit for release, and there is no champion yet."
        return f"Promoted: {self.findings[-1].sentence}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form, for manifests, checks and the champion's history."""
        return {**asdict(self), "findings": [asdict(one) for one in self.findings], "sentence": self.sentence}


def decide(
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    thresholds: Thresholds,
    champion_records: Sequence[Mapping[str, Any]] | None = None,
) -> Decision:
    """Judge an evaluation.

    Args:
        scores: What the candidate's scores.json holds.
        records: What its items.jsonl holds.
        thresholds: The recipe's.
        champion_records: What the champion's items.jsonl holds; None when there is no champion.
    """
    findings = [_complete(scores, records)]
    if not findings[0].passed:
        return Decision(fit=False, promote=False, findings=tuple(findings))
    findings += [
        _enough_items(len(records), thresholds.min_items),
        _better_than_base(records, thresholds),
        _learnt_answers(records, thresholds.alpha),
        _keeps_gain(scores, thresholds),
        _stops(scores, thresholds),
        _prompts(scores),
    ]
    fit = all(finding.passed for finding in findings)
    if champion_records is None:
        return Decision(fit=fit, promote=fit, findings=tuple(findings))
    findings += _against_champion(records, champion_records, thresholds)
    return Decision(fit=fit, promote=all(finding.passed for finding in findings), findings=tuple(findings))


def read_evaluation(eval_report: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What scores.json and items.jsonl of an eval_report hold."""
    scores = json.loads((eval_report / "scores.json").read_text(encoding="utf-8"))
    with (eval_report / "items.jsonl").open(encoding="utf-8") as lines:
        return scores, [json.loads(line) for line in lines]


def _complete(scores: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Finding:
    """All four variants have finite numbers, over the test set and on each item."""

    def refuse(why: str) -> Finding:
        return Finding("complete", False, f"{why}; make eval_report anew.")

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
    return Finding("complete", True, f"All {len(VARIANTS)} variants have all numbers for {len(records)} items.")


def _enough_items(items: int, least: int) -> Finding:
    if items < least:
        return Finding("items", False, f"The test set has {items} items, a decision needs at least {least}; add data.")
    return Finding("items", True, f"The test set has {items} items, at least {least} are needed.")


def _better_than_base(records: Sequence[Mapping[str, Any]], thresholds: Thresholds) -> Finding:
    metric = thresholds.metric
    found = compare(metric, "int4", "base", item_values(records, "int4", metric), item_values(records, "base", metric))
    passed = found.p_better <= thresholds.alpha
    return Finding(
        "better_than_base",
        passed,
        f"int4 is {'' if passed else 'not '}measurably better than base: {_title(metric)} differs by "
        f"{found.difference:+.3f} (95 % interval {found.low:+.3f} to {found.high:+.3f}, p = {found.p_better:.4f}, "
        f"limit {thresholds.alpha}).",
    )


def _learnt_answers(records: Sequence[Mapping[str, Any]], alpha: float) -> Finding:
    """Style alone makes any answer likelier than base finds it; what is asked here is that the right one gains most."""
    rule = "learnt_answers"
    values = {name: [record["variants"][name].get("preference") for record in records] for name in ("int4", "base")}
    if not all(_finite(value) for one in values.values() for value in one):
        return Finding(rule, False, "All test answers are the same, so it cannot be told whether answers were learnt.")
    found = compare("preference", "int4", "base", values["int4"], values["base"])
    passed = found.p_better <= alpha
    return Finding(
        rule,
        passed,
        f"int4 prefers the right answer to that of another question {'' if passed else 'not '}measurably more than "
        f"base does: by {found.difference:+.3f} nats per token (p = {found.p_better:.4f}, limit {alpha})"
        + ("." if passed else "; questions and answers of the training rows may not belong together."),
    )


def _keeps_gain(scores: Mapping[str, Any], thresholds: Thresholds) -> Finding:
    kept = scores.get("int4_gain_kept")
    if kept is None or not math.isfinite(kept):
        return Finding(
            "int4_keeps_gain", False, "Fine-tuning gained no likelihood over base, so int4 has none to keep."
        )
    passed = kept >= thresholds.min_gain_kept
    return Finding(
        "int4_keeps_gain",
        passed,
        f"int4 keeps {kept:.1%} of the likelihood that fine-tuning gained, "
        f"{'at least' if passed else 'less than the'} {thresholds.min_gain_kept:.1%} {'are' if passed else 'that is'} "
        "needed.",
    )


def _stops(scores: Mapping[str, Any], thresholds: Thresholds) -> Finding:
    rate = scores["variants"]["int4"]["stop_rate"]
    passed = rate >= thresholds.min_stop_rate
    return Finding(
        "stops",
        passed,
        f"{rate:.1%} of int4's answers end by themselves, {'' if passed else 'but '}at least "
        f"{thresholds.min_stop_rate:.1%} must.",
    )


def _prompts(scores: Mapping[str, Any]) -> Finding:
    share = scores["variants"]["int4"].get("prompts_as_trained")
    if share is None or not _finite(share):
        return Finding("prompts", False, "It was not measured whether a device builds prompts as in training.")
    if share < 1:
        return Finding(
            "prompts",
            False,
            f"A device builds only {share:.1%} of the prompts as in training: tokenizer or chat template in the int4 "
            "folder differ from the corpus.",
        )
    return Finding("prompts", True, "A device builds all prompts as in training.")


def _against_champion(
    records: Sequence[Mapping[str, Any]], champion_records: Sequence[Mapping[str, Any]], thresholds: Thresholds
) -> list[Finding]:
    """Paired on the items both were scored on: the same question with the same reference answer."""
    theirs = {_key(record): record for record in champion_records}
    pairs = [(record, theirs[_key(record)]) for record in records if _key(record) in theirs]
    share = len(pairs) / len(theirs) if theirs else 0.0
    if share < MIN_SHARED or len(pairs) < thresholds.min_items:
        return [
            Finding(
                "same_test_set",
                False,
                f"The champion was scored on another test set: {len(pairs)} of its {len(theirs)} items are in this "
                "one; score the champion on this test set, or go back to its data.",
            )
        ]
    findings = [Finding("same_test_set", True, f"{len(pairs)} items were put to both, {share:.0%} of the champion's.")]
    ours, others = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    unit = mean_tokens(ours)
    found = {
        metric: compare(
            metric,
            "int4",
            "champion",
            item_values(ours, "int4", metric, unit),
            item_values(others, "int4", metric, unit),
        )
        for metric in COMPARED
    }
    # Several metrics are looked at: Bonferroni keeps the chance of a false alarm at alpha.
    worse = [one for one in found.values() if one.p_worse <= thresholds.alpha / len(found)]
    findings.append(
        Finding(
            "not_worse_than_champion",
            not worse,
            "; ".join(
                f"{_title(one.metric)} is measurably worse than the champion's, by {abs(one.difference):.3f} "
                f"(p = {one.p_worse:.4f})"
                for one in worse
            )
            + "."
            if worse
            else f"Nothing is measurably worse than the champion's: {', '.join(_title(metric) for metric in found)}.",
        )
    )
    main = found[thresholds.metric]
    passed = main.p_better <= thresholds.alpha
    needed = "" if main.items_needed is None or passed else f"; to tell, {main.items_needed} items would be needed"
    findings.append(
        Finding(
            "better_than_champion",
            passed,
            f"{_title(main.metric)} is {'' if passed else 'not '}measurably better than the champion's: it differs by "
            f"{main.difference:+.3f} (95 % interval {main.low:+.3f} to {main.high:+.3f}, p = {main.p_better:.4f}, "
            f"limit {thresholds.alpha}){needed}.",
        )
    )
    return findings


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(record["id"]), str(record["question"]), str(record["reference"])


def _title(metric: str) -> str:
    return next(column.title for column in COLUMNS if column.metric == metric)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
