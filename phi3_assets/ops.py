"""The ops that assets are made of: plan a step, run it, verify what came out.

A plan says what is called for and why; running it is one Olive pass, or nothing at all when the artefact already
stands; the last op verifies every byte and shows it in the UI. Re-execution from failure resumes at the op that failed.
Between ops travel small records, never models. Ops that run a step return `Output`, because a Pipes session allows
nothing untyped to be returned from the op it was opened in.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from phi3_assets import steps, ui
from phi3_assets.data import freeze as freezing
from phi3_assets.errors import UserError
from phi3_assets.home import SHORT
from phi3_assets.manifest import ArtefactRef
from phi3_assets.olive.export import export_config
from phi3_assets.planning import Context, Record, from_json, make_plan, readable_errors
from phi3_assets.resources.artifacts import ArtifactStore
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.step import Step, StepCall

# One slot of this pool is one device: two trainings side by side on one GPU end in out-of-memory.
DEVICE_POOL = "device"


def freeze_test_set(context: Context, done: Mapping[str, Any], recipe: RecipeResource, store: ArtifactStore) -> None:
    """Freeze the test set that a `raw_dataset` proposed; from now on its rows are never trained on."""
    with readable_errors():
        ref = ArtefactRef(**done["ref"])
        folder = store.test_sets_path(recipe.load().dataset_path)
        made_with = done["call"]["inputs"].get("test_sets")
        name = freezing.freeze(folder, store.fetch(ref), ref.identity, made_with)
        if name is not None:
            context.log.info(f"Froze test set {name} in {folder}: its rows will never be trained on.")


def export_olive_config(
    context: Context, done: Mapping[str, Any], recipe: RecipeResource, store: ArtifactStore
) -> None:
    """Write what was run as a configuration that plain `olive run --config` executes on this machine."""
    with readable_errors():
        ref = ArtefactRef(**done["ref"])
        base_model, formatted_corpus = (
            store.fetch(ArtefactRef(**done["inputs"][name])) for name in ("base_model", "formatted_corpus")
        )
        target = store.home_path / "fine-tuning" / ref.identity[:SHORT]
        on_gpu = metrics_of(store, done["ref"]).get("device", "cpu") != "cpu"
        path = export_config(recipe.load(), base_model, formatted_corpus, target, on_gpu=on_gpu)
        context.log.info(f"The same for plain Olive: olive run --config {path}")


def run_plan(context: Context, plan: Mapping[str, Any], execution: Execution, store: ArtifactStore) -> Record:
    """Make the planned artefact, unless it stands; of two runs that want it, one makes it.

    Returns:
        JSON: the plan with "ref", the artefact's pointer.
    """
    call = StepCall(**plan["call"])
    inputs = {name: from_json(item) for name, item in plan["inputs"].items()}
    with readable_errors():
        made = store.find(call.step, call.identity)
        if made is None:

            def waiting() -> None:
                context.log.info(f"Another run is making {call.step} {call.identity[:SHORT]}; waiting for it.")

            with store.claim(call, waiting):
                made = store.find(call.step, call.identity)
                if made is None:
                    made = execution.run_step(context, call, inputs, store)
    return {**plan, "ref": made.ref.to_dict()}


def verify_and_show(context: Context, done: Mapping[str, Any], store: ArtifactStore) -> dg.MaterializeResult[Any]:
    """Verify an artefact byte by byte and show it."""
    ref = ArtefactRef(**done["ref"])
    with readable_errors():
        directory = store.fetch(ref, content=True)
        manifest = store.find(ref.kind, ref.identity)
        assert manifest is not None
    context.log.info(f"{ref.kind} {ref.identity[:SHORT]} stands in {store.where(ref)}.")
    return dg.MaterializeResult(
        value=ref.to_dict(),
        data_version=dg.DataVersion(ref.digest),
        metadata={
            **ui.describe(manifest, directory),
            "recipe": done["recipe"] or "(default)",
            "reused": done["reused"],
            "why": done["why"],
            "path": dg.MetadataValue.path(store.where(ref)),
            "log": dg.MetadataValue.path(f"{store.where(ref)}.log"),
        },
    )


def metrics_of(store: ArtifactStore, pointer: Record) -> dict[str, Any]:
    """What the step measured that made this artefact; for checks."""
    ref = ArtefactRef(**pointer)
    with readable_errors():
        manifest = store.find(ref.kind, ref.identity)
        if manifest is None:
            raise UserError(f"{ref.kind} is gone from the store; materialise it again.")
    return manifest.metrics


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


@dg.op
def verify_artefact(context: dg.OpExecutionContext, store: ArtifactStore, done: Record) -> dg.MaterializeResult[Record]:
    """Compare every byte of the artefact with its manifest, then show it in the UI."""
    return verify_and_show(context, done, store)


# base_model


@dg.op
def plan_base_model(context: dg.OpExecutionContext, recipe: RecipeResource, store: ArtifactStore) -> Record:
    """Which base model, at which revision, and whether it is here already."""
    return make_plan(context, steps.BASE_MODEL, recipe, store, {})


@dg.op(tags={"kind": "huggingface"})
def fetch_base_model(
    context: dg.OpExecutionContext, execution: Execution, store: ArtifactStore, plan: Record
) -> dg.Output[Record]:
    """Fetch the weights as safetensors and lay them out as Phi-3 where they are not."""
    return dg.Output(run_plan(context, plan, execution, store))


# lora_adapter


@dg.op
def plan_lora_adapter(
    context: dg.OpExecutionContext,
    recipe: RecipeResource,
    store: ArtifactStore,
    base_model: Record,
    formatted_corpus: Record,
) -> Record:
    """Which adapter this recipe, base model and corpus call for."""
    upstream = {"base_model": base_model, "formatted_corpus": formatted_corpus}
    return make_plan(context, steps.LORA_ADAPTER, recipe, store, upstream)


@dg.op(pool=DEVICE_POOL, tags={"kind": "olive"})
def run_lora_pass(
    context: dg.OpExecutionContext, execution: Execution, store: ArtifactStore, recipe: RecipeResource, plan: Record
) -> dg.Output[Record]:
    """Olive's LoRA pass; resumes from its last checkpoint if it was killed.

    Beside it stands the same as an Olive configuration, in fine-tuning/<identity>/olive-config.json.
    """
    done = run_plan(context, plan, execution, store)
    export_olive_config(context, done, recipe, store)
    return dg.Output(done)


# merged_model


@dg.op
def plan_merged_model(
    context: dg.OpExecutionContext,
    recipe: RecipeResource,
    store: ArtifactStore,
    base_model: Record,
    lora_adapter: Record,
) -> Record:
    """Which adapter goes into which base model."""
    upstream = {"base_model": base_model, "lora_adapter": lora_adapter}
    return make_plan(context, steps.MERGED_MODEL, recipe, store, upstream)


@dg.op(pool=DEVICE_POOL, tags={"kind": "olive"})
def run_merge_pass(
    context: dg.OpExecutionContext, execution: Execution, store: ArtifactStore, plan: Record
) -> dg.Output[Record]:
    """Olive's MergeAdapterWeights pass."""
    return dg.Output(run_plan(context, plan, execution, store))


# onnx_int4_model


@dg.op
def plan_onnx_int4_model(
    context: dg.OpExecutionContext,
    recipe: RecipeResource,
    store: ArtifactStore,
    merged_model: Record,
    formatted_corpus: Record,
) -> Record:
    """Which model is quantised, and how; the corpus calibrates where the recipe's algorithm asks for it."""
    upstream = {"merged_model": merged_model, "formatted_corpus": formatted_corpus}
    return make_plan(context, steps.ONNX_INT4_MODEL, recipe, store, upstream)


@dg.op(pool=DEVICE_POOL, tags={"kind": "olive"})
def run_model_builder_pass(
    context: dg.OpExecutionContext,
    execution: Execution,
    store: ArtifactStore,
    plan: Record,
) -> dg.Output[Record]:
    """Olive's ModelBuilder pass, int4, for ONNX Runtime GenAI."""
    return dg.Output(run_plan(context, plan, execution, store))
