"""What every asset does: plan a step, run it, verify what came out.

A plan says what is called for and why; running it is one Olive pass, or nothing at all when the artefact already
stands; the last op verifies every byte and shows it in the UI. Re-execution from failure resumes at the op that failed.
Between ops travel small records, never models. Ops that run a step return `Output`, because a Pipes session allows
nothing untyped to be returned from the op it was opened in.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import dagster as dg

from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.measured import Metrics
from phi3_assets.core.step import Step, StepCall
from phi3_assets.data.testset import TEST_SET
from phi3_assets.data.testset import versions as test_sets
from phi3_assets.ops import show as ui
from phi3_assets.ops.planning import Context, from_json, make_plan
from phi3_assets.ops.retrying import retried
from phi3_assets.resources.execution import Execution, readable_errors
from phi3_assets.resources.pointers import Record, latest, ref_of
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

M = TypeVar("M", bound=Metrics)


def freeze_test_set(context: Context, done: Mapping[str, Any], recipe: RecipeResource, store: ArtifactStore) -> None:
    """Freeze the test set that a `raw_dataset` proposed; from now on its rows are never trained on."""
    with readable_errors():
        ref, call = ArtefactRef(**done["ref"]), done["call"]
        manifest = store.find(ref.kind, ref.identity)
        if manifest is None or not manifest.metrics["test_set_is_new"]:
            return
        proposed = store.peek(ref, TEST_SET) / TEST_SET
        product = recipe.load().product
        made_with = call["inputs"].get("test_sets")
        frozen = test_sets.freeze(store.ledger, product, proposed, ref.identity, made_with, call["params"])
        if frozen is not None:
            context.log.info(
                f"Froze test set {frozen.file} of product {product}, {frozen.rows} rows: they will never be trained on."
            )


def export_olive_config(
    context: Context, done: Mapping[str, Any], recipe: RecipeResource, store: ArtifactStore
) -> None:
    """Write what was run as a configuration that plain `olive run --config` executes on this machine."""
    from phi3_assets.olive.export import export_config

    if store.elsewhere:
        context.log.info("`phi3 config export` brings base model and corpus here and writes the same for plain Olive.")
        return
    with readable_errors():
        ref = ArtefactRef(**done["ref"])
        base_model, formatted_corpus = (
            store.fetch(ArtefactRef(**done["inputs"][name])) for name in ("base_model", "formatted_corpus")
        )
        target = store.home_path / "fine-tuning" / ref.identity[:SHORT]
        manifest = store.find(ref.kind, ref.identity)
        on_gpu = manifest is not None and manifest.metrics.get("device", "cpu") != "cpu"
        path = export_config(recipe.load(), base_model, formatted_corpus, target, on_gpu=on_gpu)
        context.log.info(f"The same for plain Olive: olive run --config {path}")


def run_plan(context: Context, plan: Mapping[str, Any], execution: Execution, store: ArtifactStore) -> Record:
    """Make the planned artefact, unless it stands; of two runs that want it, one makes it.

    What fails for a reason that may pass is tried again.

    Returns:
        JSON: the plan with "ref", the artefact's pointer.
    """
    call = StepCall(**plan["call"])
    inputs = {name: from_json(item) for name, item in plan["inputs"].items()}
    with retried(context), readable_errors():
        made = store.find(call.step, call.identity)
        if made is None:

            def waiting(who: str) -> None:
                context.log.info(f"{call.step} {call.identity[:SHORT]} is in the hands of {who}; waiting for it.")

            with store.claim(call, waiting, context.run.run_id):
                made = store.find(call.step, call.identity)
                if made is None:
                    made = execution.run_step(context, call, inputs, store)
    return {**plan, "ref": made.ref.to_dict()}


def verify_and_show(
    context: Context, done: Mapping[str, Any], store: ArtifactStore, tags: Mapping[str, str] | None = None
) -> dg.MaterializeResult[Any]:
    """Verify an artefact where it stands, and show it; `tags` are the materialisation's."""
    ref = ArtefactRef(**done["ref"])
    with readable_errors():
        store.verify(ref)
        directory = store.peek(ref)
        manifest = store.find(ref.kind, ref.identity)
        assert manifest is not None
    context.log.info(f"{ref.kind} {ref.identity[:SHORT]} stands in {store.where(ref)}.")
    return dg.MaterializeResult(
        value={**ref.to_dict(), **{name: done[name] for name in ("product", "planned", "recipe")}},
        data_version=dg.DataVersion(ref.digest),
        tags=tags,
        metadata={
            **ui.describe(manifest, directory),
            "recipe": done["recipe"],
            "reused": done["reused"],
            "why": done["why"],
            "path": ui.place(store.where(ref)),
            "log": ui.place(store.where_log(ref)),
        },
    )


def artefact_of(store: ArtifactStore, recipe: RecipeResource, record: Record) -> ArtefactRef:
    """The artefact that a check is asked about: this run's; where checks run alone, the one materialised last."""
    with readable_errors():
        if "identity" in record:
            return ref_of(record)
        product = recipe.load().product
        found = latest(store.ledger, product, record["asset"])
        if found is None:
            raise UserError(f"{record['asset']} has not been materialised for product {product}. Materialise it first.")
        return found


def metrics_of(store: ArtifactStore, recipe: RecipeResource, record: Record) -> dict[str, Any]:
    """What the step measured that made this artefact; for checks."""
    ref = artefact_of(store, recipe, record)
    with readable_errors():
        manifest = store.find(ref.kind, ref.identity)
        if manifest is None:
            raise UserError(f"{ref.kind} is gone from the store; materialise it again.")
    return manifest.metrics


def measured(store: ArtifactStore, recipe: RecipeResource, record: Record, kind: type[M]) -> M:
    """What the step measured that made this artefact, under its names; for checks."""
    metrics = metrics_of(store, recipe, record)
    with readable_errors():
        return kind.from_dict(metrics)


def materialise(
    context: Context,
    step: Step,
    recipe: RecipeResource,
    execution: Execution,
    store: ArtifactStore,
    **upstream: Any,
) -> dg.MaterializeResult[Any]:
    """Plan, run and verify in one op, for assets that are one op."""
    plan = make_plan(context, step, recipe, store, upstream)
    return verify_and_show(context, run_plan(context, plan, execution, store), store)
