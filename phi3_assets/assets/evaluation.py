"""What the models are worth, and what is shipped."""

from collections.abc import Iterator

import dagster as dg

from phi3_assets import steps
from phi3_assets.assets.data import OWNERS
from phi3_assets.ops.promotion import NEWEST_IS_CHAMPION, crown
from phi3_assets.ops.running import materialise
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


@dg.asset(
    group_name="evaluation",
    kinds={"pytorch", "onnx"},
    owners=OWNERS,
    code_version=steps.EVAL_REPORT.code_version,
)
def eval_report(
    context: dg.AssetExecutionContext,
    recipe: RecipeResource,
    execution: Execution,
    store: ArtifactStore,
    formatted_corpus: Record,
    base_model: Record,
    lora_adapter: Record,
    merged_model: Record,
    onnx_int4_model: Record,
) -> dg.MaterializeResult[Record]:
    """Base, adapter, merged and int4 scored on the same held-out questions, the int4 model in its own runtime."""
    return materialise(
        context,
        steps.EVAL_REPORT,
        recipe,
        execution,
        store,
        formatted_corpus=formatted_corpus,
        base_model=base_model,
        lora_adapter=lora_adapter,
        merged_model=merged_model,
        onnx_int4_model=onnx_int4_model,
    )


@dg.asset(group_name="evaluation", kinds={"onnx"}, owners=OWNERS, code_version=steps.RELEASE_BUNDLE.code_version)
def release_bundle(
    context: dg.AssetExecutionContext,
    recipe: RecipeResource,
    execution: Execution,
    store: ArtifactStore,
    base_model: Record,
    onnx_int4_model: Record,
    eval_report: Record,
) -> dg.MaterializeResult[Record]:
    """What an edge device takes: the int4 model, its licence, model card, scores, digests and a smoke test."""
    return materialise(
        context,
        steps.RELEASE_BUNDLE,
        recipe,
        execution,
        store,
        base_model=base_model,
        onnx_int4_model=onnx_int4_model,
        eval_report=eval_report,
    )


@dg.asset(
    group_name="evaluation",
    kinds={"onnx"},
    owners=OWNERS,
    output_required=False,
    check_specs=[
        dg.AssetCheckSpec(
            NEWEST_IS_CHAMPION,
            asset="champion",
            description="The release that was decided about last became the champion; if not, why it was refused or "
            "for whom it waits.",
        )
    ],
)
def champion(
    context: dg.AssetExecutionContext,
    recipe: RecipeResource,
    execution: Execution,
    store: ArtifactStore,
    release_bundle: Record,
) -> Iterator[dg.MaterializeResult[Record] | dg.AssetCheckResult]:
    """The release to take. It changes when a release is better, and in nothing worse, or a person says so.

    Every promotion, rollback and retirement is a materialisation of it. A release that is refused, or waits for a
    person's approval, leaves the champion as it is, and an observation and a warning here that say why.
    """
    yield from crown(context, recipe, store, execution, release_bundle)
