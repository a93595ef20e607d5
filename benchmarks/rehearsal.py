"""A model of Phi-3-mini's size through every step on this machine: peak memory of each beside its estimate.

    python -m benchmarks rehearsal                                     3.8 billion random numbers; more than an hour
    python -m benchmarks rehearsal --model random:phi3-mini-1-layer    its widths with one of its 32 layers

Nothing but the learning is missing: base model, corpus, two steps of LoRA, merge, int4 by Gptq without recovery,
evaluation, bundle, and a question to the bundle's model. It needs 30 GB of disk; with `--home` what stands is reused.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._rows import write_sample
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.core.manifest import read_manifest
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest

BAR_BYTES = 20 * 2**30
ROWS = 110
PRODUCT = "rehearsal"
ESTIMATED = ("lora_adapter", "merged_model", "onnx_int4_model", "eval_report")
"""Steps whose memory is reckoned beforehand; the others hold no model."""
KINDS = ("base_model", *ESTIMATED, "release_bundle")
FIELDS: dict[str, Any] = {
    "base_model_revision": '"0"',  # a string to YAML
    "product": PRODUCT,
    "max_steps": 2,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": True,
    "learning_rate": 1e-3,  # so that two steps are seen
    "eval_share": 0,
    "max_seq_len": 256,
    "test_items": 10,
    "int4_recovery_steps": 0,
    "max_new_tokens": 8,
    # A random model answers nothing; what is asked here is whether all steps run.
    "gate_alpha": 0.4,
    "gate_min_items": 2,
    "gate_learnt_answers": False,
    "gate_min_gain_kept": 0,
    "gate_min_stop_rate": 0,
    "gate_max_int4_loss": 1,
    "gate_max_general_perplexity_ratio": 1e12,
}


def run(arguments: list[str]) -> dict[str, Any]:
    """Run it; ok where no step took more than 20 GiB, nor another than its estimate by more than a quarter."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks rehearsal", description=__doc__)
    parser.add_argument("--model", default="random:phi3-mini", help="recipe field base_model")
    parser.add_argument("--home", type=Path, help="PHI3_HOME; default: one that is removed afterwards")
    options = parser.parse_args(arguments)
    if options.home:
        return _rehearse(options.model, options.home)
    with tempfile.TemporaryDirectory(prefix="phi3-rehearsal-") as home:
        return _rehearse(options.model, Path(home))


def _rehearse(model: str, home: Path) -> dict[str, Any]:
    write_sample(home / "datasets", ROWS)
    given = [f"--set={name}={value}" for name, value in (FIELDS | {"base_model": model}).items()]
    _phi3("run", "--recipe", "phi3-mini-lora", *given, "--to", KINDS[-1], home=home)
    _phi3(
        "chat", "What is the capital of France?", "--latest", "--product", PRODUCT, "--max-new-tokens", "8", home=home
    )
    store = LocalArtifactStore(home=str(home))
    steps: dict[str, dict[str, Any]] = {}
    print(f"{'step':18}{'estimate':>12}{'peak':>12}{'ratio':>8}{'seconds':>10}")
    for kind in KINDS:
        ref = latest(store.ledger, PRODUCT, kind)
        assert ref is not None, "phi3 run made it"
        manifest = read_manifest(store.fetch(ref))
        estimate, peak = (manifest.metrics.get(f"{what}_memory_bytes") or 0 for what in ("estimated", "peak"))
        ratio = estimate / peak if peak else 0.0
        steps[kind] = {"estimate": estimate, "peak": peak, "ratio": ratio, "seconds": manifest.ran["seconds"]}
        told = f"{_gib(estimate)}{_gib(peak)}{ratio:8.2f}" if peak else " " * 32
        print(f"{kind:18}{told}{manifest.ran['seconds']:10.0f}")
    measured = [steps[kind] for kind in ESTIMATED]
    worst = max(max(step["ratio"], 1 / step["ratio"]) if step["ratio"] else float("inf") for step in measured)
    return {
        "name": "rehearsal",
        "model": model,
        "ratio": round(worst, 3),
        "bar": TOLERANCE,
        "ok": worst <= TOLERANCE and all(step["peak"] <= BAR_BYTES for step in measured),
        "steps": steps,
    }


def _phi3(*arguments: str, home: Path) -> None:
    command = [sys.executable, "-m", "phi3_assets.cli.app", *arguments, "--home", str(home)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run(command, check=True, stdout=sys.stderr, env=environment)


def _gib(size: int) -> str:
    return f"{size / 2**30:8.2f} GiB"
