"""On the default model, minutes each: `pytest -m slow phi3_assets_tests/steps/test_default_model.py`.

The methods end in a scored int4 model, the cookbook's recipes run with nothing replaced but the base model, and a
training killed with SIGKILL ends bit-equal to one that was left alone. Few steps on a few rows: what is shown is that
the chain holds on real weights; how well it learns is for the benchmarks.
"""

import csv
import json
import math
import os
import signal
from pathlib import Path

import pytest

from phi3_assets.cli.runner import latest
from phi3_assets.core.home import SAMPLE, initialise
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.steps.alone import assert_same, metrics_of
from phi3_assets_tests.steps.killing import train
from phi3_assets_tests.tiny_graph import phi3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
ROWS = 80
STEPS = 4
PLAIN_INT4: dict[str, str | int] = {
    "int4_algorithm": "default",
    "int8_modules": "[]",
    "int4_budget": "",
    "int4_embedding_bits": 8,
    "int4_recovery_steps": 0,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the first rows of the sample; the base model is fetched once and shared by all tests."""
    home = tmp_path_factory.mktemp("default") / "home"
    initialise(home)
    (file,) = (home / "datasets").iterdir()
    with (SAMPLE / file.name).open(newline="", encoding="utf-8") as source:
        rows = list(csv.reader(source))[: ROWS + 1]
    with file.open("w", newline="", encoding="utf-8") as target:
        csv.writer(target).writerows(rows)
    return home


def run(home: Path, recipe: str, **fields: str | int) -> dict[str, dict[str, float]]:
    """Run the graph, and return the scores of the four variants; the gate may hold the release back."""
    short = {**fields, "max_new_tokens": 4, "gate_min_items": 2}
    pairs = [part for name, value in short.items() for part in ("--set", f"{name}={value}")]
    done = phi3("run", "--recipe", recipe, *pairs, home=home, env=clean_env(OMP_NUM_THREADS="2"), timeout_s=3600)
    print(done.stdout)
    made = latest(home)
    adapter = json.loads((made["lora_adapter"] / "manifest.json").read_text())
    assert {name: str(adapter["call"]["params"].get(name, value)) for name, value in fields.items()} == {
        name: str(value) for name, value in fields.items()
    }
    metrics = adapter["metrics"]
    print({name: metrics[name] for name in ("method", "first_loss", "final_loss", "train_seconds")})
    share = metrics["estimated_memory_bytes"] / metrics["peak_memory_bytes"]
    print(f"estimated {metrics['estimated_seconds']:.0f} s, and {share:.0%} of the peak memory")
    return json.loads((made["eval_report"] / "scores.json").read_text())["variants"]


@pytest.mark.parametrize("method", ["lora", "qlora", "dora"])
def test_method_ends_in_a_scored_int4_model(method: str, home: Path) -> None:
    fields = {"method": method, "max_steps": STEPS, "compute_dtype": "float32"}
    scores = run(home, "smol-cpu", **fields, **PLAIN_INT4)
    assert all(scores[variant]["nll"] < scores["base"]["nll"] for variant in ("adapter", "merged", "int4"))


@pytest.mark.parametrize("recipe", ["phi3-mini-lora", "phi3-mini-qlora"])
def test_cookbooks_recipes_run_on_the_default_model(recipe: str, home: Path) -> None:
    """In bfloat16, as they say, which a CPU without such units only emulates: hence a single step."""
    default = load_recipe("smol-cpu")
    base = {"base_model": default.base_model, "base_model_revision": default.base_model_revision}
    scores = run(home, recipe, **base, max_steps=1)
    assert set(scores) == {"base", "adapter", "merged", "int4"}
    assert all(math.isfinite(variant["nll"]) for variant in scores.values())


def test_killed_training_ends_bit_equal(home: Path, tmp_path: Path) -> None:
    """SIGKILL while step 3 of 4 is logged; dropout, all threads, real weights."""
    if not {"base_model", "formatted_corpus"} <= latest(home).keys():  # this test alone
        run(home, "smol-cpu", max_steps=1, **PLAIN_INT4)
    inputs = {name: latest(home)[name] for name in ("base_model", "formatted_corpus")}
    threads = os.cpu_count() or 1
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    arguments = {"recipe": "smol-cpu", "threads": threads, "max_steps": STEPS, "logging_steps": 1}
    assert train(inputs, alone, **arguments) == 0
    assert train(inputs, killed, kill_at=3, number=signal.SIGKILL, **arguments) == -signal.SIGKILL
    assert train(inputs, killed, **arguments) == 0
    assert metrics_of(killed)["resumed_from_step"] > 0
    assert_same(alone / "output", killed / "output")
