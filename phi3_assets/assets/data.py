"""From the user's files to what a model is trained on."""

import dagster as dg

from phi3_assets import steps
from phi3_assets.ops.observing import observation
from phi3_assets.ops.planning import make_plan
from phi3_assets.ops.run_tags import DATASETS_ASSET, read_tags
from phi3_assets.ops.running import freeze_test_set, materialise, run_plan, verify_and_show
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

OWNERS = ["team:language-models"]


@dg.asset(
    group_name="inputs",
    kinds={"json"},
    owners=OWNERS,
    code_version=steps.RAW_DATASET.code_version,
    deps=[DATASETS_ASSET],
)
def raw_dataset(
    context: dg.AssetExecutionContext, recipe: RecipeResource, execution: Execution, store: ArtifactStore
) -> dg.MaterializeResult[Record]:
    """Every row of the files in PHI3_HOME/datasets, as one kind of record: kept, or quarantined with the reason.

    Rows are split into training and test by a hash of the question, so that a row never changes side as data grows. The
    test set is frozen at first use: whatever the files hold later, its rows are never trained on.
    """
    plan = make_plan(context, steps.RAW_DATASET, recipe, store, {})
    context.log_event(observation(plan["data_version"]))
    done = run_plan(context, plan, execution, store)
    freeze_test_set(context, done, recipe, store)
    return verify_and_show(context, done, store, read_tags(plan["data_version"]))


@dg.asset(
    group_name="inputs",
    kinds={"parquet", "huggingface"},
    owners=OWNERS,
    code_version=steps.FORMATTED_CORPUS.code_version,
)
def formatted_corpus(
    context: dg.AssetExecutionContext,
    recipe: RecipeResource,
    execution: Execution,
    store: ArtifactStore,
    raw_dataset: Record,
    base_model: Record,
) -> dg.MaterializeResult[Record]:
    """The rows in the base model's chat format, as tokens, with the labels that say what is learnt: the answers.

    Holds the training rows and the held-out test rows that every variant is scored on.
    """
    return materialise(
        context,
        steps.FORMATTED_CORPUS,
        recipe,
        execution,
        store,
        raw_dataset=raw_dataset,
        base_model=base_model,
    )
