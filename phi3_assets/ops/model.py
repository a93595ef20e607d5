"""The ops of the model assets: one Olive pass each, between its plan and the proof of what came out."""

import dagster as dg

from phi3_assets import steps
from phi3_assets.ops.planning import make_plan
from phi3_assets.ops.running import export_olive_config, run_plan, verify_and_show
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


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


@dg.op(tags={"kind": "olive"})
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


@dg.op(tags={"kind": "olive"})
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
    lora_adapter: Record,
) -> Record:
    """Which model is quantised, and how; the corpus calibrates where the recipe's algorithm asks for it."""
    upstream = {"merged_model": merged_model, "formatted_corpus": formatted_corpus, "lora_adapter": lora_adapter}
    return make_plan(context, steps.ONNX_INT4_MODEL, recipe, store, upstream)


@dg.op(tags={"kind": "olive"})
def run_model_builder_pass(
    context: dg.OpExecutionContext,
    execution: Execution,
    store: ArtifactStore,
    plan: Record,
) -> dg.Output[Record]:
    """Olive's ModelBuilder pass, int4, for ONNX Runtime GenAI."""
    return dg.Output(run_plan(context, plan, execution, store))
