"""QLoRA's adapter on the base model as it is, or rounded to 4 bits: `python -m benchmarks qlora` (six minutes).

The default model learns the sample by QLoRA. Its adapter was trained beside weights of 4 bits. Merged, it goes into the
full ones (`merge_onto: full`) or into what training saw of them (`merge_onto: trained`, the default), and each is then
quantised as the default recipe does, without the recovery, which would close the gap that is asked about. Told is the
NLL of the held-out answers, in nats per token; the ratio is that of int4, full over trained.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._train_sides import prepare, step

BAR = 1.0
METHOD: dict[str, Any] = {"method": "qlora", "replay_share": 0.0}
WAYS = ("full", "trained")


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """Measure; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks qlora", description=__doc__)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--work", type=Path, help="keep models and corpus here, and use what is there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="qlora-benchmark-") as name:
        work = options.work or Path(name)
        found = {"in training": child(work, options.epochs, "in training")}
        for way in WAYS:
            found |= {f"{kind}, {way}": child(work, options.epochs, kind, way) for kind in ("merged", "int4")}
    print(f"{'':18}{'NLL':>8}")
    for what, nll in found.items():
        print(f"{what:18}{nll:>8.4f}")
    ratio = found["int4, full"] / found["int4, trained"]
    return {
        "name": "qlora",
        "ratio": round(ratio, 3),
        "bar": BAR,
        "ok": ratio >= BAR,
        "epochs": options.epochs,
        "nll": {what: round(nll, 4) for what, nll in found.items()},
    }


def child(work: Path, epochs: float, kind: str, way: str = "") -> float:
    """Make one model in a process of its own; NLL of the held-out answers."""
    command = [sys.executable, "-m", "benchmarks.qlora", str(work), str(epochs), kind, way]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def in_training(work: Path, epochs: float) -> float:
    """Of the base model in 4 bits with its adapter."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    from phi3_assets.steps import LORA_ADAPTER

    work.mkdir(exist_ok=True)
    prepare(work, epochs)
    inputs = {name: work / name for name in ("base_model", "formatted_corpus")}
    if not (work / LORA_ADAPTER.name / "adapter_model.safetensors").exists():
        step(LORA_ADAPTER, work, inputs, num_train_epochs=epochs, **METHOD)
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    base = AutoModelForCausalLM.from_pretrained(work / "base_model", dtype=torch.float32, quantization_config=four_bit)
    return torch_nll(work, PeftModel.from_pretrained(base, work / LORA_ADAPTER.name).get_base_model().eval())


def merged(work: Path, way: str) -> float:
    """Of the merged model."""
    from phi3_assets.evaluation.torch_scorer import load_model
    from phi3_assets.steps import MERGED_MODEL

    inputs = {name: work / name for name in ("base_model", "lora_adapter")}
    step(MERGED_MODEL, work, inputs, merge_onto=way)
    shutil.copytree(work / MERGED_MODEL.name, work / way, dirs_exist_ok=True)
    return torch_nll(work, load_model(work / way))


def int4(work: Path, way: str) -> float:
    """Of the merged model in int4."""
    from phi3_assets.evaluation import genai_scorer
    from phi3_assets.models import genai
    from phi3_assets.models.end_tokens import genai_end_token_ids
    from phi3_assets.steps import ONNX_INT4_MODEL

    inputs = {"merged_model": work / way, "formatted_corpus": work / "formatted_corpus"}
    step(ONNX_INT4_MODEL, work, inputs, int4_recovery_steps=0, int4_budget="", **METHOD)
    folder = work / ONNX_INT4_MODEL.name
    return mean(genai_scorer.score(genai.load_model(folder), items(work), genai_end_token_ids(folder), 1))


def torch_nll(work: Path, model: Any) -> float:
    """Of the held-out answers."""
    from phi3_assets.evaluation import torch_scorer
    from phi3_assets.models.end_tokens import end_token_ids

    return mean(torch_scorer.score(model, items(work), end_token_ids(work / "base_model"), 1))


def items(work: Path) -> list[Any]:
    """The test set."""
    from phi3_assets.evaluation.items import load_items

    return load_items(work / "formatted_corpus" / "test.jsonl")


def mean(scores: Any) -> float:
    """Of items' means over tokens."""
    found: list[float] = [score.nll for score in scores]
    return sum(found) / len(found)


def main(work: str, epochs: str, kind: str, way: str) -> None:
    """One model, in this process; prints its number as the last line."""
    from phi3_assets.models import environment

    environment.prepare()
    folder = Path(work)
    kinds = {"merged": merged, "int4": int4}
    print(json.dumps(kinds[kind](folder, way) if way else in_training(folder, float(epochs))))


if __name__ == "__main__":
    main(*sys.argv[1:])
