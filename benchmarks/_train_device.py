"""The side of `benchmarks train --device`: LoRA and QLoRA by the step itself, in a process of its own for each.

Printed are tokens per second, the device's peak memory beside what was reckoned, and the share of its arithmetic: the
products with the base model's weights, forward and back to the activations, over what one large product reaches. What
gradient checkpointing does twice counts once.
"""

import json
import subprocess
import sys
import time
from math import prod
from pathlib import Path
from typing import Any

from benchmarks._rows import write_chats
from phi3_assets.core.memory import gib

METHODS = ("lora", "qlora")
ROWS = 96
STEPS = 12
SIZES = {"cuda": 8192, "cpu": 2048}
"""Rows and columns of the large product."""
REPEATS = 5


def on_device(device: str, model: str, work: Path, processes: int) -> dict[str, Any]:
    """Train on the device by each method; the ratio is the worst between estimated and peak memory.

    Raises:
        SystemExit: There is no such device.
    """
    import torch

    from phi3_assets.core.forecast import TOLERANCE

    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "train --device cuda: torch sees no CUDA device here. Its twin for this machine: --device cpu."
        )
    write_chats(work / "datasets", "chat", ROWS)
    found = {}
    print(f"{'':8}{'tokens/s':>10}{'estimate':>12}{'peak':>12}{'ratio':>8}{'of its arithmetic':>20}   device")
    for method in METHODS:
        command = [sys.executable, "-m", "benchmarks._train_device", method, model, str(work), device, str(processes)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        one: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found[method] = one
        print(
            f"{method:8}{one['tokens_per_s']:>10.0f}{gib(one['estimate']):>12}{gib(one['peak']):>12}"
            f"{one['estimate'] / one['peak']:>8.2f}{one['share']:>20.1%}   {one['device']}"
        )
    worst = max(max(one["estimate"] / one["peak"], one["peak"] / one["estimate"]) for one in found.values())
    return {
        "name": f"train --device {device}",
        "ratio": round(worst, 3),
        "bar": TOLERANCE,
        "ok": worst <= TOLERANCE,
        "model": model,
        "methods": found,
    }


def train(method: str, model: str, work: Path, device: str, processes: int) -> dict[str, Any]:
    """One training of a few steps with the values of the Phi-3 recipe of this method."""
    import torch

    from phi3_assets.core.recipe_file import load_recipe
    from phi3_assets.core.step import StepContext
    from phi3_assets.models.directory import tensor_headers
    from phi3_assets.steps import BASE_MODEL, FORMATTED_CORPUS, LORA_ADAPTER, RAW_DATASET

    if device == "cpu":
        torch.cuda.is_available = lambda: False
    fields = {
        "base_model": model,
        "base_model_revision": "0",
        "max_steps": STEPS,
        "replay_share": 0,
        "processes": processes,
        "eval_share": 0,
    }
    recipe = load_recipe(f"phi3-mini-{method}", fields)
    made = {"datasets": work / "datasets"}
    metrics: dict[str, Any] = {}
    for step in (RAW_DATASET, BASE_MODEL, FORMATTED_CORPUS, LORA_ADAPTER):
        folders = {name: work / method / step.name / name for name in ("output", "work", "cache")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        wanted = ("datasets",) if step is RAW_DATASET else step.inputs
        metrics = step.load()(
            StepContext(
                params=step.params(recipe),
                settings=step.settings(recipe),
                inputs={name: made[name] for name in wanted},
                output=folders["output"],
                work=folders["work"],
                cache=folders["cache"],
                log=lambda line: print(line, file=sys.stderr),
            )
        )
        made[step.name] = folders["output"]
    layers = sum(
        prod(tensor["shape"])
        for name, tensor in tensor_headers(made["base_model"]).items()
        if len(tensor["shape"]) == 2 and ".layers." in name
    )
    products = 4 * layers * metrics["tokens_per_s"]
    return {
        "tokens_per_s": metrics["tokens_per_s"],
        "estimate": metrics["estimated_memory_bytes"],
        "peak": metrics["peak_memory_bytes"],
        "share": products / arithmetic(device) / processes,
        "device": metrics["device"],
    }


def arithmetic(device: str) -> float:
    """Operations per second of one large product in bfloat16; the best of some."""
    import torch

    size = SIZES[device]
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(REPEATS):
        started = time.perf_counter()
        (left @ right)[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


if __name__ == "__main__":
    given_method, given_model, given_work, given_device, given_processes = sys.argv[1:]
    print(json.dumps(train(given_method, given_model, Path(given_work), given_device, int(given_processes))))
