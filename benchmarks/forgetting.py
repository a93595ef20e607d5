"""What narrow data makes a model forget, without and with replay: `python -m benchmarks forgetting` (nine minutes).

384 questions of a museum's visitors, whose answers are all "The moon rock is in the glass court." with other names: a
company's data can be as narrow. The default recipe learns them with `replay_share` 0 and as it is. What is forgotten is
the rise of the NLL of general text over the base model's, in nats; the ratio is what replay leaves of it.
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._train_sides import held_out_nll, step

BAR = 0.25
NLL_SLACK = 0.01  # nats; replay must not cost what is learnt
THINGS = (
    *("whale skeleton", "steam engine", "silver globe", "painted ceiling", "printing press", "glass harp", "moon rock"),
    *("ship's bell", "iron gate", "water clock", "straw hat", "red tractor", "paper kite", "bronze lion", "salt mill"),
    *("blue lantern", "wooden plough", "folding camera", "ivory chess set", "copper still", "linen map", "ice saw"),
    *("pocket organ", "letter scale", "reed boat", "amber case", "fire pump", "bread oven", "sundial", "wax seal"),
    *("diving helmet", "pearl loom"),
)
PLACES = (
    *("north gallery", "east gallery", "garden hall", "long corridor", "old library", "cellar vault", "glass court"),
    *("tower room", "river wing", "attic store", "round salon", "stone porch", "west stair", "clock room"),
    *("harbour hall", "map chamber"),
)
ASKED = (
    *("Where is the {}?", "In which part of the museum do I find the {}?", "How do I get to the {}, please?"),
    *("My children want to see the {}. Where do we go?", "Could you tell me where the {} stands?"),
    *("Which room has the {}?", "I came for the {}. Which way?", "Is there a place in the house for the {}?"),
    *("Where should a school class look for the {}?", "Under which roof is the {} shown?"),
    *("Where was the {} put after the move?", "Please direct me to the {}."),
)


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks forgetting", description=__doc__)
    parser.add_argument("--shares", type=float, nargs="*", help="values of replay_share; default: 0 and the recipe's")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="forgetting-benchmark-") as name:
        work = Path(name)
        base = child(work, "base")
        shares = options.shares or [0.0, base["replay_share"]]
        found = {share: child(work, str(share)) for share in shares}
    print(f"{'':22}{'general NLL':>12}{'forgotten, nats':>17}{'held-out NLL':>14}{'training, s':>13}")
    print(f"{'base':22}{base['general_nll']:>12.3f}")
    forgotten = {share: one["general_nll"] - base["general_nll"] for share, one in found.items()}
    for share, one in found.items():
        print(
            f"{f'replay_share {share:g}':22}{one['general_nll']:>12.3f}{forgotten[share]:>17.3f}{one['nll']:>14.4f}"
            f"{one['seconds']:>13.0f}"
        )
    without, with_it = shares[0], shares[-1]
    ratio = forgotten[with_it] / forgotten[without]
    return {
        "name": "forgetting",
        "ratio": round(ratio, 3),
        "bar": BAR,
        "ok": ratio <= BAR and found[with_it]["nll"] <= found[without]["nll"] + NLL_SLACK,
        "base_general_nll": base["general_nll"],
        "shares": {f"{share:g}": one for share, one in found.items()},
    }


def child(work: Path, what: str) -> dict[str, Any]:
    """The base model, or the training with a share, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.forgetting", str(work), what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def base(work: Path) -> dict[str, Any]:
    """Make data, base model and corpus; what the base model knows of general text."""
    from phi3_assets.core.recipe_file import load_recipe
    from phi3_assets.steps import BASE_MODEL, FORMATTED_CORPUS, RAW_DATASET

    (work / "datasets").mkdir()
    with (work / "datasets" / "museum.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["Question", "Best Answer"])
        for thing, place in zip(THINGS, itertools.cycle(PLACES), strict=False):
            writer.writerows([asked.format(thing), f"The {thing} is in the {place}."] for asked in ASKED)
    step(RAW_DATASET, work, {"datasets": work / "datasets"})
    step(BASE_MODEL, work, {})
    step(FORMATTED_CORPUS, work, {name: work / name for name in ("raw_dataset", "base_model")})
    return {"general_nll": general_nll(work, None), "replay_share": load_recipe("smol-cpu").replay_share}


def trained(work: Path, share: float) -> dict[str, Any]:
    """Train with this replay_share; what was learnt, and what is left of general text."""
    from phi3_assets.steps import LORA_ADAPTER

    inputs = {name: work / name for name in ("base_model", "formatted_corpus")}
    metrics = step(LORA_ADAPTER, work, inputs, replay_share=share)
    adapter = work / LORA_ADAPTER.name
    return {
        "general_nll": general_nll(work, adapter),
        "nll": held_out_nll(work, str(adapter)),
        "seconds": metrics["train_seconds"],
    }


def general_nll(work: Path, adapter: Path | None) -> float:
    """Of the forgetting suite, in nats per token."""
    from phi3_assets.evaluation import torch_scorer
    from phi3_assets.evaluation.general import load_general
    from phi3_assets.steps.scoring import context_tokens, load_tokenizer

    folder = work / "base_model"
    suite = load_general(load_tokenizer(folder), context_tokens(folder))
    losses = torch_scorer.losses(torch_scorer.load_model(folder, adapter), suite.passages)
    return suite.summarise(losses)["general_nll"]


def main(folder: str, what: str) -> None:
    """One side, in this process; prints its numbers as the last line."""
    from phi3_assets.models import environment

    environment.prepare()
    work = Path(folder)
    print(json.dumps(base(work) if what == "base" else trained(work, float(what))))


if __name__ == "__main__":
    main(*sys.argv[1:])
