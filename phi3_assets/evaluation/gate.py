"""The gate: may this model be released, and is it to replace the champion?

The one place where the rules of `fitness` and `against_champion` become a decision. The asset checks of eval_report,
the release step and the promotion all ask here, so they cannot disagree; and every decision can be made again from what
eval_report and champion_comparison hold.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe
from phi3_assets.evaluation import against_champion
from phi3_assets.evaluation.findings import Thresholds
from phi3_assets.evaluation.fitness import judge_fitness


@dataclass(frozen=True)
class Decision:
    """The gate's answer.

    Attributes:
        fit: May be released: all rules that look at the model alone are kept.
        promote: May become the champion: fit, and if there is a champion, better than it and in nothing worse.
        findings: Every rule that was applied, in order.
    """

    fit: bool
    promote: bool
    findings: tuple[Finding, ...]

    @property
    def sentence(self) -> str:
        """The outcome and, if it is a no, every reason."""
        refused = [finding.sentence for finding in self.findings if not finding.passed]
        if not self.fit:
            return f"Not fit for release: {' '.join(refused)}"
        if not self.promote:
            return f"Fit for release, but the champion stays: {' '.join(refused)}"
        if self.findings[-1].rule not in against_champion.RULES:
            return "Promoted: it is fit for release, and there is no champion yet."
        return f"Promoted: {self.findings[-1].sentence}"

    def to_dict(self) -> dict[str, Any]:
        """JSON form, for manifests, checks and the champion's history."""
        return {**asdict(self), "findings": [asdict(one) for one in self.findings], "sentence": self.sentence}


def decide(
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    thresholds: Thresholds,
    against: Sequence[Finding] | None = None,
) -> Decision:
    """Judge an evaluation.

    Args:
        scores: What the candidate's scores.json holds.
        records: What its items.jsonl holds.
        thresholds: The recipe's.
        against: What `against_champion` finds; None when there is no champion.
    """
    findings = judge_fitness(scores, records, thresholds)
    fit = all(finding.passed for finding in findings)
    if fit and against is not None:
        findings += against
    return Decision(fit=fit, promote=all(finding.passed for finding in findings), findings=tuple(findings))


def judge_report(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """The blocking rules of eval_report: is the model fit for release?"""
    return judge_fitness(*read_evaluation(directory), Thresholds.from_params(recipe.model_dump()))


def read_evaluation(eval_report: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What scores.json and items.jsonl of an eval_report hold."""
    scores = json.loads((eval_report / "scores.json").read_text(encoding="utf-8"))
    with (eval_report / "items.jsonl").open(encoding="utf-8") as lines:
        return scores, [json.loads(line) for line in lines]
