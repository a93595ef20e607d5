"""What a finished adapter directory holds, and whether the adapter does anything."""

import json
import re
import shutil
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from phi3_assets.core import memory
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.files import write_json

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PLOTTED_POINTS = 50


def publish_adapter(source: Path, target: Path) -> None:
    """Copy the adapter that PEFT saved, without what differs from machine to machine.

    PEFT writes the absolute path of the base model into the configuration and a README, and lists the target modules
    in the order of a set, which changes with each process.
    """
    config = json.loads((source / CONFIG_FILE).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    write_json(target / CONFIG_FILE, config)
    shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)


def adapter_norms(directory: Path) -> dict[str, Any]:
    """How much an adapter changes: PEFT starts every B matrix at zero, so what is left at zero was never trained.

    Returns:
        b_norm_min, b_norm_max and b_matrices of `AdapterMetrics`.

    Raises:
        UserError: Every B matrix is zero, or a value is not finite.
    """
    import torch
    from safetensors import safe_open

    norms = []
    with safe_open(directory / WEIGHTS_FILE, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 (not a mapping)
            if "lora_B" in name:
                norms.append(float(torch.linalg.vector_norm(weights.get_tensor(name).double())))
    if not norms or max(norms) == 0.0:
        raise UserError(
            "The adapter is inert: training left every B matrix at zero, so the model is still the base model. Raise "
            "learning_rate, max_steps or num_train_epochs, or check target_modules."
        )
    if not all(norm < float("inf") for norm in norms):
        raise UserError("The adapter holds values that are not finite. Lower learning_rate or max_grad_norm.")
    return {"b_norm_min": min(norms), "b_norm_max": max(norms), "b_matrices": len(norms)}


def count_adapter_parameters(directory: Path) -> int:
    """Numbers in the adapter's weights, which are those that were trained."""
    from safetensors import safe_open

    total = 0
    with safe_open(directory / WEIGHTS_FILE, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 (not a mapping)
            size = 1
            for side in weights.get_slice(name).get_shape():
                size *= side
            total += size
    return total


def check_target_modules(base_model: Path, target_modules: list[str]) -> None:
    """Refuse names that no linear layer of the base model has; PEFT would adapt the others and say nothing.

    Raises:
        UserError: Names the layers there are. Phi-3 fuses q, k, v into qkv_proj and gate, up into gate_up_proj.
    """
    from safetensors import safe_open

    linear: set[str] = set()
    for file in base_model.glob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 (not a mapping)
                parts = name.split(".")
                if len(parts) > 2 and parts[-1] == "weight" and len(weights.get_slice(name).get_shape()) == 2:
                    linear.add(parts[-2])
    linear.discard("embed_tokens")
    if unknown := sorted(set(target_modules) - linear):
        raise UserError(
            f"target_modules: the base model has no linear layer {unknown[0]!r}. It has: {', '.join(sorted(linear))}."
        )


def out_of_memory(error: BaseException, params: Mapping[str, Any]) -> UserError | TransientError | None:
    """Turn an out-of-memory error of torch into one that says which memory and what to lower; None: another error.

    It is transient where other processes held more of that memory than this one.

    Args:
        error: What was raised.
        params: Recipe fields of the step.
    """
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        free, total = torch.cuda.mem_get_info()
        held = torch.cuda.memory_reserved()
        where = f"The GPU's memory is full: of {memory.gib(total)} {memory.gib(free)} were free"
    elif isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        held, free, total = memory.held_bytes(), memory.available_bytes(), memory.total_bytes()
        where = (
            f"The host's memory is full: this process held {memory.gib(held)}, and of "
            f"{memory.gib(total)} {memory.gib(free)} were available"
        )
    else:
        return None
    wanted = re.search(r"(?:allocate|allocate memory: you tried to allocate) ([\d.]+ (?:[KMG]iB|bytes))", str(error))
    text = f"{where}{f', too few for {wanted[1]} more' if wanted else ''}. {memory.what_to_lower(params)}"
    return TransientError(text) if total - free - held > held else UserError(text)


def plot_curve(curve: list[dict[str, Any]], path: Path) -> None:
    """Draw loss, loss on held-out rows and learning rate over steps as PNG; the same curve gives the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    # No pyplot: it holds global state and looks for a display.
    figure = Figure(figsize=(7, 3.5), dpi=100, layout="constrained")
    axis = figure.subplots()
    steps = [point["step"] for point in curve]
    # Single steps jump about; the curve is that of means of a few.
    span = ceil(len(curve) / _PLOTTED_POINTS)
    parts = [curve[at : at + span] for at in range(0, len(curve), span)]
    axis.plot(
        [part[-1]["step"] for part in parts],
        [sum(point["loss"] for point in part) / len(part) for part in parts],
        color="#0072B2",
        marker="o",
        markersize=3,
        label="loss" if span == 1 else f"loss, mean of {span} steps",
    )
    evaluations = [(point["step"], point["eval_loss"]) for point in curve if point.get("eval_loss") is not None]
    if evaluations:
        axis.plot(
            *zip(*evaluations, strict=True), color="#009E73", marker="s", markersize=4, label="loss on held-out rows"
        )
    axis.set(xlabel="optimiser step", ylabel="loss on answer tokens (nats)")
    axis.set_ylim(bottom=0)
    axis.grid(visible=True, color="#DDDDDD")
    rate = axis.twinx()
    rate.plot(
        steps, [point["learning_rate"] for point in curve], color="#D55E00", linestyle="--", label="learning rate"
    )
    rate.set_ylabel("learning rate")
    rate.set_ylim(bottom=0)
    figure.legend(loc="upper right", bbox_to_anchor=(0.9, 0.97))
    with matplotlib.rc_context({"svg.hashsalt": ""}):
        figure.savefig(path, format="png", metadata={"Software": None})
