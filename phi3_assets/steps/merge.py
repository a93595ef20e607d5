"""The step `merged_model`: fold the adapter into the base model with Olive's MergeAdapterWeights pass."""

import gc
import shutil
from math import prod
from pathlib import Path
from typing import Any

from phi3_assets.core.forecast import Forecast
from phi3_assets.core.phases import Phases
from phi3_assets.core.step import StepContext
from phi3_assets.models import environment
from phi3_assets.models.directory import check_no_path, copy_model, describe, tensor_headers
from phi3_assets.models.end_tokens import end_token_ids
from phi3_assets.models.measured import MergeMetrics
from phi3_assets.models.shards import SHARD_BYTES
from phi3_assets.models.sizes import disk_bytes, memory_bytes
from phi3_assets.olive.merging import merging_pass
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets.steps.adopt import changes_nothing

# Largest difference allowed between a logit of merged and one of base + adapter, as a share of the largest logit.
# W + BA rounds otherwise than Wx + BAx; in bfloat16 a weight keeps only eight bits.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
_FROM_BASE = ("tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def merge_adapter(ctx: StepContext) -> dict[str, Any]:
    """Fill `ctx.output` with the merged model in the layout of the base model.

    Returns:
        `MergeMetrics` as JSON.

    Raises:
        UserError: More memory or disk needed than there is.
        RuntimeError: Merged is not base + adapter, no different from base, or ends answers elsewhere.
    """
    environment.prepare()
    base, adapter = ctx.inputs["base_model"], ctx.inputs["lora_adapter"]
    if changes_nothing(adapter):
        copy_model(base, ctx.output)
        return MergeMetrics(**describe(ctx.output).to_dict()).to_dict()
    with olive_log():
        merging = merging_pass()
    forecast = Forecast(
        "Merging", merging_bytes(base, adapter), disk_bytes(base), "Run the step on a machine with more memory."
    )
    forecast.begin(ctx.output, ctx.log)
    phases = Phases(ctx.progress, {"merge": 3, "base": 1, "adapter": 1, "merged": 1})
    phases.part("merge")
    run_pass(merging, {}, base, ctx.output, adapter=adapter)
    # Olive saves the tokenizer anew, through whatever transformers makes of it; the base model's own files are exact.
    for path in {path for pattern in _FROM_BASE for path in base.glob(pattern)}:
        shutil.copyfile(path, ctx.output / path.name)
    check_no_path(ctx.output, base, adapter, ctx.output)
    if (ends := end_token_ids(ctx.output)) != (of_base := end_token_ids(base)):
        raise RuntimeError(f"Merged ends answers at the tokens {ends}, but the base model at {of_base}.")
    facts = describe(ctx.output)
    compared = _compare(base, adapter, ctx.output, TOLERANCE[facts.dtype], phases)
    ctx.progress(fraction=1.0)
    return MergeMetrics(**facts.to_dict(), **compared, **forecast.metrics().to_dict()).to_dict()


def merging_bytes(base: Path, adapter: Path) -> int:
    """Memory that merging will take beside the libraries: one model at a time is compared, with the adapter on it."""
    layers = {name.partition(".lora_")[0].removeprefix("base_model.model.") for name in tensor_headers(adapter)}
    headers = tensor_headers(base)
    largest: int = max(prod(headers[f"{name}.weight"]["shape"]) for name in layers if f"{name}.weight" in headers)
    # A shard, and what is added to a layer's matrix before and after its scale, float32.
    writing = min(memory_bytes(base), SHARD_BYTES) + 2 * 4 * largest
    return max(writing, memory_bytes(base) + memory_bytes(adapter, 4))


def _compare(base: Path, adapter: Path, merged: Path, tolerance: float, phases: Phases) -> dict[str, Any]:
    """Measure merged against base + adapter and against base; one model in memory at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from phi3_assets.models.compare import max_difference, prompt_ids, prompt_logits

    phases.part("base")
    prompts = prompt_ids(AutoTokenizer.from_pretrained(base))
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    of_base = prompt_logits(model, prompts)
    phases.part("adapter")
    of_adapter = prompt_logits(PeftModel.from_pretrained(model, adapter).eval(), prompts)
    del model
    gc.collect()  # PEFT's layers know their model
    phases.part("merged")
    of_merged = prompt_logits(AutoModelForCausalLM.from_pretrained(merged).eval(), prompts)
    allowed = tolerance * float(of_adapter.abs().max())
    error, change = max_difference(of_merged, of_adapter), max_difference(of_merged, of_base)
    if not error <= allowed:
        raise RuntimeError(f"Merged differs from base + adapter by {error:.3g} in a logit, more than {allowed:.3g}.")
    if not change > error:
        raise RuntimeError(f"Merging changed nothing: merged is within {change:.3g} of the base model in every logit.")
    return {"max_logit_difference": error, "logit_tolerance": allowed, "max_logit_change": change}
