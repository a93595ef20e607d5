"""Beside other work: `python -m benchmarks contention` (about eight minutes; `--busy 6` for a fuller machine).

Training, scoring of a torch model and scoring of an int4 model, alone and beside processes that are busy all the time:
in turn and several times, since other machines on the same host move each. Work that shares two cores with as many
others in fairness takes twice as long. What takes a hundred times as long are threads that wait for each other by
spinning: the one that is waited for is the one that does not get the core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._train_sides import prepare, step

BAR = 3.0
ROUNDS = 3
EPOCHS = 0.2
ITEMS = 24
ANSWER_TOKENS = 48
ROUNDED: dict[str, Any] = {"int4_algorithm": "default", "int4_symmetric": True, "int4_block_size": 32}
ROUNDED |= {"int4_embedding_bits": 8, "int4_recovery_steps": 0, "int4_budget": ""}
WORK = ("training", "scoring base", "scoring int4")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks contention", description=__doc__)
    parser.add_argument("--busy", type=int, default=os.cpu_count(), help="busy processes; default: one for each core")
    parser.add_argument("--work", type=Path, help="keep the models here, and use what is there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="contention-benchmark-") as name:
        folder = options.work or Path(name)
        child(folder, "models")
        alone, beside = dict.fromkeys(WORK, 0.0), dict.fromkeys(WORK, 0.0)
        for what in WORK * ROUNDS:
            alone[what] += child(folder, what)
            with busy(options.busy):
                beside[what] += child(folder, what)
    ratios = {what: beside[what] / alone[what] for what in WORK}
    print(f"{'':14}{'alone, s':>10}{f'beside {options.busy}, s':>14}{'ratio':>8}   bar {BAR}")
    for what in WORK:
        print(f"{what:14}{alone[what]:>10.1f}{beside[what]:>14.1f}{ratios[what]:>8.2f}")
    worst = max(ratios.values())
    return {
        "name": "contention",
        "ratio": round(worst, 3),
        "bar": BAR,
        "ok": worst <= BAR,
        "busy": options.busy,
        "ratios": {what: round(ratio, 3) for what, ratio in ratios.items()},
    }


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never rest."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def child(folder: Path, what: str) -> float:
    """Seconds of one piece of work, loading aside, in a process of its own, with the environment of a worker."""
    from phi3_assets.models.environment import settings

    command = [sys.executable, "-m", "benchmarks.contention", str(folder), what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings()})
    return float(json.loads(done.stdout.splitlines()[-1]))


def models(folder: Path) -> float:
    """Base model, corpus, and the base model in int4, rounded plainly; unless they are there."""
    from phi3_assets.steps import ONNX_INT4_MODEL

    started = time.perf_counter()
    prepare(folder, EPOCHS)
    if not (folder / ONNX_INT4_MODEL.name / "genai_config.json").exists():
        inputs = {"merged_model": folder / "base_model", "formatted_corpus": folder / "formatted_corpus"}
        step(ONNX_INT4_MODEL, folder, inputs, **ROUNDED)
    return time.perf_counter() - started


def training(folder: Path) -> float:
    """Seconds of the optimiser's steps alone."""
    from phi3_assets.steps import LORA_ADAPTER

    inputs = {name: folder / name for name in ("base_model", "formatted_corpus")}
    return float(step(LORA_ADAPTER, folder, inputs, num_train_epochs=EPOCHS)["train_seconds"])


def scoring_base(folder: Path) -> float:
    """Likelihoods and answers of the base model."""
    from phi3_assets.evaluation import torch_scorer
    from phi3_assets.models.end_tokens import end_token_ids

    base = folder / "base_model"
    return scoring(folder, torch_scorer.score, torch_scorer.load_model(base), end_token_ids(base))


def scoring_int4(folder: Path) -> float:
    """The same of the int4 model."""
    from phi3_assets.evaluation import genai_scorer
    from phi3_assets.models import genai
    from phi3_assets.models.end_tokens import genai_end_token_ids

    int4 = folder / "onnx_int4_model"
    return scoring(folder, genai_scorer.score, genai.load_model(int4), genai_end_token_ids(int4))


def scoring(folder: Path, score: Callable[..., Iterable[object]], model: Any, ends: list[int]) -> float:
    """Seconds that a model, loaded already, takes for the first items of the test set."""
    from phi3_assets.evaluation.items import load_items

    items = load_items(folder / "formatted_corpus" / "test.jsonl")[:ITEMS]
    started = time.perf_counter()
    list(score(model, items, ends, ANSWER_TOKENS))
    return time.perf_counter() - started


PIECES = {"models": models, "training": training, "scoring base": scoring_base, "scoring int4": scoring_int4}


if __name__ == "__main__":
    print(json.dumps(PIECES[sys.argv[2]](Path(sys.argv[1]))))
