"""The gate as asset checks of eval_report: a model that is not fit never becomes a release.

One check for each rule of `phi3_assets.evaluation.fitness`, all blocking, made by one op because they are one decision.
They judge; where the answer is no, a page is kept that says why. What is compared with the champion is no check: the
champion may be another one tomorrow, and is this very model once it was promoted, so such a check would not be about
the asset. It is decided, and recorded, by the asset champion.
"""

from collections.abc import Iterator

import dagster as dg

from phi3_assets.assets.evaluation import eval_report
from phi3_assets.checks.results import findings, shown
from phi3_assets.core.finding import Finding
from phi3_assets.core.home import SHORT
from phi3_assets.evaluation.fitness import RULES
from phi3_assets.ops.decision_pages import keep_unfit
from phi3_assets.ops.running import artefact_of
from phi3_assets.ops.show import links, place
from phi3_assets.resources.execution import readable_errors
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


@dg.multi_asset_check(
    specs=[
        dg.AssetCheckSpec(rule, asset=eval_report, blocking=True, description=description)
        for rule, description in RULES.items()
    ]
)
def model_is_fit(store: ArtifactStore, recipe: RecipeResource, eval_report: Record) -> Iterator[dg.AssetCheckResult]:
    """Asks the gate whether the model may be released.

    Raises:
        dagster.Failure: It may not. All reasons in one place, where Dagster's own error would give the rules' names.
    """
    found = findings(store, recipe, eval_report)
    broken = next((one.sentence for one in found.values() if not one.passed), "")
    for rule in RULES:
        yield shown(found.get(rule) or Finding(rule, False, f"It cannot be judged. {broken}"))
    if broken:
        ref = artefact_of(store, recipe, eval_report)
        with readable_errors():
            product = recipe.load().product
            page = keep_unfit(store, product, ref, list(found.values()))
        reasons = " ".join(one.sentence for one in found.values() if not one.passed)
        raise dg.Failure(
            f"The model of eval_report {ref.identity[:SHORT]}, product {product}, is not fit for release. {reasons} "
            f"{page.told}",
            metadata={"page": place(page.where), **links({"decision page": page.url})},
            allow_retries=False,
        )
