"""How small int4 can be and still answer like merged: `python -m benchmarks quantize` (35 minutes after `make run`).

The frontier is measured on the development split: one more training holds out a tenth of the training rows, which
neither it nor any quantising learns from. Each point is the artefact onnx_int4_model of the default recipe with other
fields, made by `phi3 run` in a home, so what stands is reused and an interrupted run goes on. The best point that is
small enough is then made of the model that learnt from all rows, and measured once on the test set, beside Olive's
default. Speed is that of each as its users run it: ours on all cores (`models/genai.py`), Olive's by GenAI alone, which
in a virtual machine may leave half of them; that of both on equal threads is told too. `--recipe tiny-test --steps 4
--points "block 32" --share 0.7` tries all of it in a minute or two.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks._frontier import Asked, best, decode_speed, show
from benchmarks._made import made
from phi3_assets.core.home import default_home
from phi3_assets.evaluation.development import SHARE, development_items
from phi3_assets.evaluation.items import load_items
from phi3_assets.olive.corpus import TRAIN_FILE
from phi3_assets.steps.scoring import load_tokenizer

BARS = {"size": 0.40, "exact_match": 0.98, "gain_kept": 0.995, "general_nll": 1.03, "speed": 1.15}
SPEED_ROUNDS = 7  # the best counts, because other work only ever slows a model
PRODUCT = "quantize-benchmark"  # its own test set and pointers; artefacts are shared
KINDS = ("base_model", "formatted_corpus", "merged_model", "onnx_int4_model")

NO_BUDGET: dict[str, Any] = {"int8_modules": [], "int4_budget": "", "int4_bits": 4}
DEFAULT = NO_BUDGET | {"int4_algorithm": "default", "int4_symmetric": True, "int4_block_size": 32}
DEFAULT |= {"int4_embedding_bits": 8, "int4_recovery_steps": 0}
GPTQ = NO_BUDGET | {"int4_algorithm": "gptq", "int4_symmetric": False, "int4_block_size": 64, "int4_embedding_bits": 4}
# The default model's sizes are divisible by 64 and not by 128: no larger block is possible.
POINTS: dict[str, dict[str, Any]] = {
    "2 and 4 bits, 60 MB": GPTQ | {"int4_bits": 2, "int4_budget": "60 MB"},
    "2 and 4 bits, 70 MB": GPTQ | {"int4_bits": 2, "int4_budget": "70 MB"},
    "block 64": GPTQ,
    "block 64, 0.4 of default": GPTQ | {"int4_budget": "0.4"},
    "block 32": GPTQ | {"int4_block_size": 32},
    "block 64, 90 MB": GPTQ | {"int4_budget": "90 MB"},
    "block 32, embeddings 8": GPTQ | {"int4_block_size": 32, "int4_embedding_bits": 8},
    "block 16, embeddings 8": GPTQ | {"int4_block_size": 16, "int4_embedding_bits": 8},
}
RECOVERED = ("2 and 4 bits, 70 MB", "block 64, 0.4 of default")
"""Points that are small enough to be chosen and are also recovered: five minutes each."""


def run(arguments: list[str]) -> dict[str, Any]:
    """Measure; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="benchmarks quantize", description=__doc__)
    parser.add_argument("--home", type=Path, default=default_home(), help="PHI3_HOME; what stands there is reused")
    parser.add_argument("--recipe", default="smol-cpu", help="the recipe that all is made by")
    parser.add_argument("--steps", type=int, default=120, help="int4_recovery_steps of the points that are recovered")
    parser.add_argument("--points", nargs="*", default=list(POINTS), help="points of the frontier, by name")
    parser.add_argument("--share", type=float, default=BARS["size"], help="most bytes, as a share of Olive's default")
    options = parser.parse_args(arguments)
    bars = BARS | {"size": options.share}
    points = {}
    for name in options.points:
        points[name] = POINTS[name] | {"int4_recovery_steps": 0}
        if name in RECOVERED or options.points != list(POINTS):
            points[f"{name}, recovered"] = POINTS[name] | {"int4_recovery_steps": options.steps}

    held_out = {"eval_share": SHARE}

    def of(fields: Mapping[str, Any]) -> dict[str, Path]:
        return made(options.home, options.recipe, PRODUCT, KINDS, fields)

    plain = of(held_out | DEFAULT)
    tokenizer = load_tokenizer(plain["base_model"])
    items = development_items(plain["formatted_corpus"] / TRAIN_FILE, tokenizer)
    asked = Asked(options.home, items, plain, tokenizer)
    found = {"Olive's default": asked.int4(plain["onnx_int4_model"])}
    for name, fields in points.items():
        found[name] = asked.int4(of(held_out | fields)["onnx_int4_model"])
    show(f"Development split, {len(items)} rows", asked.torch, found)
    chosen = best(found, asked.torch, bars, "Olive's default")
    print(f"\nChosen on the development split: {chosen}")

    folders = {name: of(fields) for name, fields in (("Olive's default", DEFAULT), (chosen, points[chosen]))}
    for_all = folders[chosen]
    asked = Asked(options.home, load_items(for_all["formatted_corpus"] / "test.jsonl"), for_all, tokenizer)
    final = {name: asked.int4(folder["onnx_int4_model"]) for name, folder in folders.items()}
    # In turn, so that what else the machine does slows all of them.
    olive = folders["Olive's default"]["onnx_int4_model"]
    by_itself = 0.0  # Olive's, on the threads that ONNX Runtime chooses
    for _ in range(SPEED_ROUNDS):
        for name, folder in folders.items():
            speed = decode_speed(folder["onnx_int4_model"], asked.prompt)
            final[name]["tokens_per_s"] = max(final[name].get("tokens_per_s", 0.0), speed)
        by_itself = max(by_itself, decode_speed(olive, asked.prompt, by_itself=True))
    show(f"Test set, {len(asked.items)} questions, asked once", asked.torch, final)
    equal = final[chosen]["tokens_per_s"] / final["Olive's default"]["tokens_per_s"]
    print(f"Olive's default on the threads that ONNX Runtime chooses itself: {by_itself:.1f} tokens/s")
    ratios = judged(final[chosen], final["Olive's default"] | {"tokens_per_s": by_itself}, asked.torch["merged"])
    smaller = ("size", "general_nll")
    return {
        "name": "quantize",
        "ratio": round(ratios["size"], 4),
        "bar": bars["size"],
        "ok": all(ratios[name] <= bar if name in smaller else ratios[name] >= bar for name, bar in bars.items()),
        "chosen": chosen,
        "speed_on_equal_threads": round(equal, 4),
        "ratios": {name: round(value, 4) for name, value in ratios.items()},
        "bars": bars,
        "development": found,
        "test": final,
        "torch": asked.torch,
    }


def judged(chosen: Mapping[str, float], plain: Mapping[str, float], merged: Mapping[str, float]) -> dict[str, float]:
    """What the bars are about."""
    return {
        "size": chosen["bytes"] / plain["bytes"],
        "exact_match": chosen["exact_match"] / merged["exact_match"] if merged["exact_match"] else 1.0,
        "gain_kept": chosen["gain_kept"],
        "general_nll": chosen["general_nll"] / merged["general_nll"],
        "speed": chosen["tokens_per_s"] / plain["tokens_per_s"],
    }
