"""Fine-tuning speed and result: `python -m benchmarks train` (25 minutes on two cores); `--epochs 0.2` for a look.

`--shapes` (30 minutes) has the same sides, at the same batch, on rows of the sample and on conversations that share
nothing with one another: of 120 prompt and 200 answer tokens, of long documents with short answers, and of several
turns; the worst ratio counts.

The sides train an adapter of rank 64 on the default model and the sample data: the same rows, as many epochs, all in
float32 or, where the processor multiplies it, bfloat16, each in a process of its own, one after the other:

- ours: the step lora_adapter with the default recipe; ours sdpa (of `--shapes` alone): with torch's attention;
- olive defaults: Olive's LoRA pass as it comes;
- olive seed: Olive's LoRA pass with the training arguments of the Phi-3 CookBook's end-to-end example;
- olive alike: Olive's LoRA pass with the batch of ours (of `--shapes` alone);
- trl: TRL's SFTTrainer, set well by hand for this machine: no checkpointing, our batch size, loss on answers only,
  rows grouped by length; trl packed (of `--shapes` alone): rows packed to the longest length instead;
- peft: a bare loop over the very batches of ours, padded.

`--device cuda` (minutes on one GPU) trains Phi-3-mini's shapes with LoRA and QLoRA by the values of their recipes, and
prints tokens per second, peak memory of the device beside the estimate, and the share of its arithmetic; `--device cpu`
is its twin, for a smaller `--model`.

Speed is supervised tokens per second of training alone: answer tokens of the corpus, over the time between the first
step's start and the last step's end. NLL is that of the held-out answers, per token, after training.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._train_device import on_device
from benchmarks._train_sides import SHAPE_ROWS
from phi3_assets.core.recipe_file import load_recipe

BARS = {"olive defaults": 2.0, "olive seed": 1.3, "trl": 1.1, "peft": 1 / 1.15}
SHAPE_BARS = {"ours sdpa": 1.0, "olive alike": 1.5, "trl": 1.1, "trl packed": 1.1, "peft": 1.0}
NLL_SLACK = 0.01  # nats; between two orders of the same rows


def run(arguments: list[str]) -> dict[str, Any]:
    """Measure all sides; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="benchmarks train", description=__doc__)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--work", type=Path, help="keep model, corpus and adapters here, and use what is there")
    parser.add_argument("--only", nargs="*", help="sides to run, by name")
    parser.add_argument("--shapes", action="store_true", help="conversations of other shapes than the sample's")
    parser.add_argument("--device", choices=("cuda", "cpu"), help="LoRA and QLoRA there, and no other side")
    parser.add_argument("--model", default="random:phi3-mini", help="of --device: recipe field base_model")
    parser.add_argument("--processes", type=int, default=1, help="of --device: processes, one per GPU")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="train-benchmark-") as name:
        work = options.work or Path(name)
        if options.device:
            return on_device(options.device, options.model, work, options.processes)
        if options.shapes:
            return shapes(work, options.epochs, options.only or ["ours", *SHAPE_BARS])
        child("prepare", work, options.epochs)
        sides = [side for side in ("ours", *BARS) if not options.only or side in options.only]
        found = {side: child(side, work, options.epochs) for side in sides}
    ratios, ok = judged(found, BARS)
    return {
        "name": "train",
        "ratio": round(ratios.get("trl", min(ratios.values(), default=0.0)), 3),
        "bar": BARS["trl"],
        "ok": ok,
        "epochs": options.epochs,
        "torch_dtype": load_recipe("smol-cpu").torch_dtype,
        "ratios": {side: round(ratio, 3) for side, ratio in ratios.items()},
        "sides": found,
    }


def shapes(work: Path, epochs: float, sides: list[str]) -> dict[str, Any]:
    """All sides on each shape; the ratio is the worst against TRL."""
    ratios: dict[str, dict[str, float]] = {}
    passed = []
    for shape in SHAPE_ROWS:
        folder = work / shape
        child("prepare", folder, epochs)
        found = {side: child(side, folder, epochs) for side in sides}
        print(f"\n{shape}")
        ratios[shape], ok = judged(found, SHAPE_BARS)
        passed.append(ok)
    worst = {side: min(one[side] for one in ratios.values()) for side in sides if side != "ours"}
    print("\nworst: " + ", ".join(f"{side} {ratio:.2f}x" for side, ratio in worst.items()))
    return {
        "name": "train --shapes",
        "ratio": round(min((ratio for side, ratio in worst.items() if side.startswith("trl")), default=0.0), 3),
        "bar": SHAPE_BARS["trl"],
        "ok": all(passed),
        "worst": {side: round(ratio, 3) for side, ratio in worst.items()},
        "shapes": {shape: {side: round(ratio, 3) for side, ratio in one.items()} for shape, one in ratios.items()},
    }


def judged(found: dict[str, dict[str, Any]], bars: dict[str, float]) -> tuple[dict[str, float], bool]:
    """Print what was found; how many times as fast as each side ours is, and whether the bars are met."""
    ours = found["ours"]
    ratios = {side: ours["tokens_per_s"] / found[side]["tokens_per_s"] for side in found if side != "ours"}
    print(f"{'side':16}{'supervised tokens/s':>20}{'ours is':>10}{'bar':>7}{'held-out NLL':>14}")
    for side, numbers in found.items():
        ratio, bar = (f"{ratios[side]:.2f}x", f"{bars[side]:.2f}") if side in ratios else ("", "")
        print(f"{side:16}{numbers['tokens_per_s']:>20.1f}{ratio:>10}{bar:>7}{numbers['nll']:>14.3f}")
    best = min(numbers["nll"] for numbers in found.values())
    return ratios, all(ratio >= bars[side] for side, ratio in ratios.items()) and ours["nll"] <= best + NLL_SLACK


def child(side: str, work: Path, epochs: float) -> dict[str, Any]:
    """Run one side in a process of its own."""
    print(f"... {side}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "benchmarks._train_sides", side, str(work), str(epochs)]
    # Olive copies its rows into the user's Hugging Face cache; not into the one of who runs this.
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **cache_of(work)})
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def cache_of(work: Path) -> dict[str, str]:
    """Environment that keeps Hugging Face's data cache in the work directory."""
    return {"HF_DATASETS_CACHE": str(work / "datasets-cache")}
