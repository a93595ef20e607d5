"""The step `merged_model`: fold the adapter into the base model with Olive's MergeAdapterWeights pass."""

import gc
import shutil
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import Forecast
from phi3_assets.core.phases import Phases
from phi3_assets.core.step import StepContext
from phi3_assets.models import environment
from phi3_assets.models.directory import check_no_path, copy_model, describe
from phi3_assets.models.end_tokens import end_token_ids
from phi3_assets.models.four_bit import FourBit
from phi3_assets.models.measured import MergeMetrics
from phi3_assets.models.merging import Merge
from phi3_assets.models.shards import SHARD_BYTES
from phi3_assets.models.sizes import disk_bytes, memory_bytes
from phi3_assets.olive.merging import merging_pass
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets.steps.adopt import changes_nothing

# Least share of what the adapter changes that must be in a layer of the merged model; one that was not merged has 0.
# Of halves it is 1 by chance where to the nearest it would be little: within a tenth for a small layer that changes by
# a hundredth of what bfloat16 tells apart.
LEAST_KEPT = {"float32": 0.999, "bfloat16": 0.5, "float16": 0.5}
# Where an adapter changes more than linear layers: largest difference of a logit, as a share of the largest logit.
LOGIT_TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
_COMPARED = {"base": 1, "adapter": 1, "merged": 1}
_FROM_BASE = ("tokenizer*", "*.jinja", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")


def merge_adapter(ctx: StepContext) -> dict[str, Any]:
    """Fill `ctx.output` with the merged model in the layout of the base model.

    Returns:
        `MergeMetrics` as JSON.

    Raises:
        UserError: More memory or disk needed than there is, or an adapter that merge_onto cannot do with.
        RuntimeError: Merged is not base + adapter, no different from base, or ends answers elsewhere.
    """
    environment.prepare()
    base, adapter = ctx.inputs["base_model"], ctx.inputs["lora_adapter"]
    if changes_nothing(adapter):
        copy_model(base, ctx.output)
        return MergeMetrics(**describe(ctx.output).to_dict()).to_dict()
    trained_on = FourBit.read(adapter) if ctx.params["merge_onto"] == "trained" else None
    merge = Merge(base, adapter, trained_on.seen if trained_on else None)
    if trained_on and not merge.by_tensor:
        raise UserError(
            "merge_onto: trained is for adapters of linear layers; this one changes more, or begins with other weights "
            "than the base model's. Set merge_onto: full."
        )
    with olive_log():
        merging = merging_pass(merge)
    forecast = Forecast("Merging", merging_bytes(base, adapter, merge), disk_bytes(base))
    forecast.begin(ctx.output, ctx.log)
    phases = Phases(ctx.progress, {"merge": 2, "kept": 1} if merge.by_tensor else {"merge": 3, **_COMPARED})
    phases.part("merge")
    run_pass(merging, {}, base, ctx.output, adapter=adapter)
    # Olive saves the tokenizer anew, through whatever transformers makes of it; the base model's own files are exact.
    for path in {path for pattern in _FROM_BASE for path in base.glob(pattern)}:
        shutil.copyfile(path, ctx.output / path.name)
    check_no_path(ctx.output, base, adapter, ctx.output)
    if (ends := end_token_ids(ctx.output)) != (of_base := end_token_ids(base)):
        raise RuntimeError(f"Merged ends answers at the tokens {ends}, but the base model at {of_base}.")
    facts = describe(ctx.output)
    if merge.by_tensor:
        phases.part("kept")
        compared = _kept(merge, ctx.output, facts.dtype, ctx.log)
    else:
        compared = _compare(base, adapter, ctx.output, LOGIT_TOLERANCE[facts.dtype], phases)
    ctx.progress(fraction=1.0)
    return MergeMetrics(**facts.to_dict(), **compared, **forecast.metrics().to_dict()).to_dict()


def merging_bytes(base: Path, adapter: Path, merge: Merge) -> int:
    """Memory that merging will take beside the libraries."""
    if not merge.by_tensor:  # one model at a time is compared, in float32, with the adapter on it
        return memory_bytes(base, 4) + memory_bytes(adapter, 4)
    largest: int = max(prod(merge.shapes[name].shape) for name in merge.adapted)
    # A shard on its way to the file, and of the layer that is merged for it in float32: after, what is added, and
    # before where it was rounded. Then of one layer: before, after, what was to be added and its square.
    merging = min(memory_bytes(base), SHARD_BYTES) + 4 * largest * (3 if merge.seen else 2)
    return max(merging, 4 * 4 * largest) + memory_bytes(adapter, 4)


def _kept(merge: Merge, merged: Path, dtype: str, log: Callable[[str], None]) -> dict[str, Any]:
    """Ask each layer of merged how much of the adapter's change is in it."""
    kept = merge.kept(merged)
    if not kept.layers:
        raise RuntimeError("Merging changed nothing: the adapter changes no layer.")
    if not kept.least >= LEAST_KEPT[dtype]:
        raise RuntimeError(
            f"Of what the adapter changes {kept.least:.1%} are in {kept.where} of the merged model, and at least "
            f"{LEAST_KEPT[dtype]:.1%} must be."
        )
    if kept.noise > 1:
        log(
            f"Rounding to {dtype} is up to {kept.noise:.1f} times as large as what the adapter changes in a layer: the "
            "changes are small. Longer training or a base model in float32 keeps them; compare base + adapter with "
            "merged in eval_report"
        )
    return {
        "layers_changed": kept.layers,
        "largest_change": kept.largest,
        "least_change_kept": kept.least,
        "change_needed": LEAST_KEPT[dtype],
        "largest_rounding": kept.noise,
    }


def _compare(base: Path, adapter: Path, merged: Path, tolerance: float, phases: Phases) -> dict[str, Any]:
    """Measure merged against base + adapter and against base; one model in memory at a time."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from phi3_assets.models.compare import max_difference, prompt_ids, prompt_logits

    phases.part("base")
    prompts = prompt_ids(AutoTokenizer.from_pretrained(base))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    of_base = prompt_logits(model, prompts)
    phases.part("adapter")
    of_adapter = prompt_logits(PeftModel.from_pretrained(model, adapter).eval(), prompts)
    del model
    gc.collect()  # PEFT's layers know their model
    phases.part("merged")
    of_merged = prompt_logits(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32).eval(), prompts)
    allowed = tolerance * float(of_adapter.abs().max())
    error, change = max_difference(of_merged, of_adapter), max_difference(of_merged, of_base)
    if not error <= allowed:
        raise RuntimeError(f"Merged differs from base + adapter by {error:.3g} in a logit, more than {allowed:.3g}.")
    if not change > error:
        raise RuntimeError(f"Merging changed nothing: merged is within {change:.3g} of the base model in every logit.")
    return {"max_logit_difference": error, "logit_tolerance": allowed, "max_logit_change": change}
