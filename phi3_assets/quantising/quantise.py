"""From a merged model to int4 ONNX: Olive's passes, with the recovery between those that quantise and the builder."""

import gc
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_assets.core.files import read_json
from phi3_assets.core.forecast import MemoryMetrics
from phi3_assets.core.memory import forget_peak_memory
from phi3_assets.core.phases import Phases
from phi3_assets.core.sealing import damage, seal
from phi3_assets.core.step import ProgressCallback, StepContext
from phi3_assets.olive import configs, corpus
from phi3_assets.olive.int4_configs import quantising_passes
from phi3_assets.olive.passes import olive_log, run_pass
from phi3_assets.quantising import phases
from phi3_assets.quantising.budget import budget_bytes, layers_within_budget
from phi3_assets.quantising.measured import RecoveryMetrics
from phi3_assets.quantising.need import forecast
from phi3_assets.quantising.recovery import recover

LAST_IN_TORCH = "rtn"
"""After this pass the recovery has its turn: all that is to be quantised is, and nothing is exported yet."""


def quantise(
    ctx: StepContext, max_length: int, train_file: Path | None, replay_file: Path | None = None
) -> tuple[RecoveryMetrics | None, MemoryMetrics]:
    """Write the int4 model to `ctx.output`; see `quantising_passes`.

    A recovery that was broken off goes on with the integers that it began with, which are kept under a seal.

    Args:
        ctx: Of the step; intermediate models go to its work directory, which the caller empties.
        max_length: Longest sequence in tokens.
        train_file: The corpus, for "gptq".
        replay_file: What was learnt beside it, and is to stay as well; see `phi3_assets.training.replay`.

    Returns:
        What the recovery learnt, None: there was none; and what all but the recovery took of memory.

    Raises:
        UserError: As `quantising_passes` and `recover`, what a pass says, or more memory or disk than there is.
    """
    recovered = None
    with olive_log():
        from olive.passes.onnx import model_builder

        # The pass hands the builder the user's Hugging Face cache for its intermediate files.
        scratch = ctx.work / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        model_builder.HF_HUB_CACHE = str(scratch)
        corpus.register()
        quantised = ctx.work / LAST_IN_TORCH
        at = ctx.work / f"{LAST_IN_TORCH}.json"
        recovering = ctx.params["int4_recovery_steps"] > 0
        model: Any = ctx.inputs["merged_model"]
        made = recovering and not damage(quantised, LAST_IN_TORCH, at)
        measured = not made and bool(budget_bytes(model, ctx.params))
        names = quantising_passes(model, ctx.params, max_length, train_file)
        need = forecast(model, ctx.params, train_file, replay_file)
        need.begin(ctx.work, ctx.log)
        left = list(names)[list(names).index(LAST_IN_TORCH) + 1 :] if made else list(names)
        steps = ctx.params["int4_recovery_steps"]
        parts = Phases(ctx.progress, phases.seconds_of(left, steps, sensitivity=measured))
        exact = []
        if measured and train_file is not None:  # without one, quantising_passes has refused
            exact = layers_within_budget(ctx, train_file, parts.part(phases.SENSITIVITY))
        passes = quantising_passes(model, ctx.params, max_length, train_file, exact, replay_file)
        if made:
            model = quantised
        for name in left:
            if recovering and name == "builder":
                need.note_peak()
                reporting = replace(ctx, progress=parts.part(phases.RECOVERY))
                model, recovered = _recovered(reporting, quantised, at, train_file, replay_file)
                forget_peak_memory()
            target = ctx.output if name == list(passes)[-1] else ctx.work / name
            model = _run(ctx, name, passes[name], model, target, parts.part(name))
            gc.collect()  # a pass leaves its model in cycles, and the next would need memory beside it
        parts.part(phases.PROOF)
    return recovered, need.metrics()


def _run(
    ctx: StepContext, name: str, config: Mapping[str, Any], model: Any, target: Path, progress: ProgressCallback
) -> Any:
    """Run one pass, and report how far it is as far as it tells."""
    merged = ctx.inputs["merged_model"]
    olive_pass = phases.counting_gptq(merged, progress) if config["type"] == "Gptq" else config["type"]
    return run_pass(
        olive_pass,
        {key: value for key, value in config.items() if key != "type"},
        model,
        target,
        provider=configs.PROVIDERS[ctx.params["execution_provider"]],
        printed=phases.builder_lines(read_json(merged / "config.json"), progress),
    )


def _recovered(
    ctx: StepContext, quantised: Path, at: Path, train_file: Path | None, replay_file: Path | None
) -> tuple[Path, RecoveryMetrics]:
    assert train_file is not None, "quantising_passes refuses gptq without a corpus"
    seal(quantised, LAST_IN_TORCH, at)
    target = ctx.work / "recovered"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    return target, recover(ctx, quantised, train_file, target, replay_file)
