"""From a base model to the int4 ONNX model, one Olive pass an asset."""

from typing import Any

import dagster as dg

from phi3_assets import steps
from phi3_assets.assets.data import OWNERS
from phi3_assets.ops import model as ops


@dg.graph_asset(group_name="inputs", kinds={"huggingface"}, owners=OWNERS, code_version=steps.BASE_MODEL.code_version)
def base_model() -> Any:
    """The pretrained chat model that everything starts from: safetensors, pinned, in Phi-3 layout, with its licence."""
    return ops.verify_artefact(ops.fetch_base_model(ops.plan_base_model()))


@dg.graph_asset(
    group_name="model", kinds={"olive", "pytorch"}, owners=OWNERS, code_version=steps.LORA_ADAPTER.code_version
)
def lora_adapter(base_model: Any, formatted_corpus: Any) -> Any:
    """What was learnt from the corpus: low-rank matrices beside the base model's, a few per cent of its size."""
    return ops.verify_artefact(ops.run_lora_pass(ops.plan_lora_adapter(base_model, formatted_corpus)))


@dg.graph_asset(
    group_name="model", kinds={"olive", "pytorch"}, owners=OWNERS, code_version=steps.MERGED_MODEL.code_version
)
def merged_model(base_model: Any, lora_adapter: Any) -> Any:
    """The base model with the adapter added into its weights: one model, at full precision."""
    return ops.verify_artefact(ops.run_merge_pass(ops.plan_merged_model(base_model, lora_adapter)))


@dg.graph_asset(
    group_name="model", kinds={"olive", "onnx"}, owners=OWNERS, code_version=steps.ONNX_INT4_MODEL.code_version
)
def onnx_int4_model(merged_model: Any, formatted_corpus: Any, lora_adapter: Any) -> Any:
    """The merged model in 4 bits for ONNX Runtime GenAI: what runs at the edge."""
    plan = ops.plan_onnx_int4_model(merged_model, formatted_corpus, lora_adapter)
    return ops.verify_artefact(ops.run_model_builder_pass(plan))
