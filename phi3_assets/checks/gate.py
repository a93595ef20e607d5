"""The gate as asset checks of eval_report: a model that is not fit never becomes a release.

One check for each rule of `phi3_assets.evaluation.fitness`, all blocking, made by one op because they are one decision.
What is compared with the champion is no check: the champion may be another one tomorrow, and is this very model once it
was promoted, so such a check would not be about the asset. It is decided when release_bundle stands, and recorded.
"""

from collections.abc import Iterator

import dagster as dg

from phi3_assets.assets.evaluation import eval_report
from phi3_assets.evaluation.fitness import RULES
from phi3_assets.ops.planning import Record
from phi3_assets.ops.promotion import judge_report
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(rule, asset=eval_report, blocking=True, description=description)
        for rule, description in RULES.items()
    ]
)
def model_is_fit(store: ArtifactStore, recipe: RecipeResource, eval_report: Record) -> Iterator[dg.AssetCheckResult]:
    """Asks the gate whether the model may be released; a refusal goes into the champion's history."""
    decision = judge_report(eval_report, recipe, store)
    found = {finding.rule: finding for finding in decision.findings}
    for rule in RULES:
        if rule in found:
            one = found[rule]
            yield dg.AssetCheckResult(
                check_name=rule, passed=one.passed, description=one.sentence, metadata=dict(one.numbers)
            )
        else:
            yield dg.AssetCheckResult(
                check_name=rule, passed=False, description=f"It cannot be judged. {decision.sentence}"
            )
