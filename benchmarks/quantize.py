"""Quantising choices on the default model: `python -m benchmarks quantize` (an hour after the training).

Each choice is built by the step onnx_int4_model from one merged model and measured on the same items: size of graph and
weights, answers and their NLL against merged and base, NLL of general text against merged, and greedy tokens per
second. The chosen default is what the recipe smol-cpu says; "plain" is Olive's default int4.
"""

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.train import prepare, step

SPEED_ROUNDS = 7  # the best counts, because other work only ever slows a model
BARS = {"size": 0.40, "exact_match": 0.98, "gain_kept": 0.995, "general_nll": 1.03, "speed": 1.15}
ANSWER_TOKENS = 48
PLAIN: dict[str, Any] = {"int8_modules": [], "int4_embedding_bits": 8, "int4_recovery_steps": 0}
GPTQ = PLAIN | {"int4_algorithm": "gptq", "int4_symmetric": False}
CHOICES: dict[str, dict[str, Any]] = {
    "plain": PLAIN | {"int4_algorithm": "default", "int4_symmetric": True, "int4_block_size": 32},
    "block 16, asymmetric": PLAIN | {"int4_algorithm": "default", "int4_symmetric": False, "int4_block_size": 16},
    "k_quant_mixed 32": PLAIN | {"int4_algorithm": "k_quant_mixed", "int4_symmetric": False, "int4_block_size": 32},
    "gptq 32": GPTQ | {"int4_block_size": 32},
    "gptq 32, attention 8 bits": GPTQ | {"int4_block_size": 32, "int8_modules": ["qkv_proj", "o_proj"]},
    "gptq 64": GPTQ | {"int4_block_size": 64},
    "gptq 64, qkv_proj 8 bits": GPTQ | {"int4_block_size": 64, "int8_modules": ["qkv_proj"]},
    "gptq 64, embeddings 4 bits": GPTQ | {"int4_block_size": 64, "int4_embedding_bits": 4},
    "gptq 64, recovered": GPTQ | {"int4_block_size": 64, "int4_recovery_steps": 111},
    "chosen": {},
}


def run(arguments: list[str]) -> dict[str, Any]:
    """Build and measure every choice; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="benchmarks quantize", description=__doc__)
    parser.add_argument("--work", type=Path, help="keep everything here, and use the models that are there")
    parser.add_argument("--only", nargs="*", help="choices, by name; plain and chosen are always measured")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="quantize-benchmark-") as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        merged = prepare_merged(work)
        texts = load_texts(work)
        torch_scores = {model: score_torch(work / model, texts) for model in ("base_model", "merged_model")}
        found = {}
        for choice, fields in CHOICES.items():
            if not options.only or choice in (*options.only, "plain", "chosen"):
                found[choice] = measure(work, merged, choice, fields, texts, torch_scores)
        # In turn, so that what else the machine does slows all of them.
        for _ in range(SPEED_ROUNDS):
            for choice, row in found.items():
                row["tokens_per_s"] = max(row.get("tokens_per_s", 0.0), decode_speed(built(work, choice), texts))
    print(
        f"{'choice':28}{'MB':>8}{'exact match':>13}{'answer NLL':>12}{'gain kept':>11}{'general NLL':>13}"
        f"{'tokens/s':>10}{'built in':>10}"
    )
    for model, row in torch_scores.items():
        print(f"{model:28}{'':>8}{row['exact_match']:>13.1%}{row['answers']:>12.4f}{'':>11}{row['general']:>13.3f}")
    for choice, row in found.items():
        print(
            f"{choice:28}{row['mb']:>8.1f}{row['exact_match']:>13.1%}{row['answers']:>12.4f}{row['gain_kept']:>11.4f}"
            f"{row['general']:>13.3f}{row['tokens_per_s']:>10.1f}{row['build_s']:>9.0f}s"
        )
    plain, chosen = found["plain"], found["chosen"]
    size = chosen["mb"] / plain["mb"]
    of_merged = torch_scores["merged_model"]
    general = chosen["general"] / of_merged["general"]
    answers = chosen["exact_match"] / of_merged["exact_match"]
    speed = chosen["tokens_per_s"] / plain["tokens_per_s"]
    return {
        "name": "quantize",
        "ratio": round(size, 3),
        "bar": BARS["size"],
        "ok": size <= BARS["size"]
        and answers >= BARS["exact_match"]
        and chosen["gain_kept"] >= BARS["gain_kept"]
        and general <= BARS["general_nll"]
        and speed >= BARS["speed"],
        "exact_match_ratio": round(answers, 3),
        "general_nll_ratio": round(general, 3),
        "speed_ratio": round(speed, 3),
        "choices": found,
        "torch": torch_scores,
    }


def prepare_merged(work: Path) -> Path:
    """Base model, corpus, adapter and merged model by the steps themselves, unless they are there."""
    from phi3_assets.steps import LORA_ADAPTER, MERGED_MODEL

    prepare(work, 0.0)
    if not (work / "merged_model" / "config.json").exists():
        step(LORA_ADAPTER, work, {name: work / name for name in ("base_model", "formatted_corpus")})
        step(MERGED_MODEL, work, {name: work / name for name in ("base_model", "lora_adapter")})
    return work / "merged_model"


Texts = dict[str, list[tuple[list[int], list[int]]]]


def load_texts(work: Path) -> Texts:
    """(context, scored tokens) of each held-out answer and of each text of the forgetting suite."""
    from transformers import AutoTokenizer

    from phi3_assets.evaluation.general import load_general

    tokenizer = AutoTokenizer.from_pretrained(work / "base_model")
    items = [json.loads(line) for line in (work / "formatted_corpus" / "test.jsonl").open(encoding="utf-8")]
    general = load_general(tokenizer, tokenizer.model_max_length).texts
    return {
        "answers": [(item["prompt_ids"], item["answer_ids"]) for item in items],
        "general": [(list(text.ids[: text.start]), list(text.ids[text.start :])) for text in general],
    }


def score_torch(model: Path, texts: Texts) -> dict[str, float]:
    """Mean NLL per text, in nats, and the share of exact answers, of a transformers model."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(model).eval()

    def logits(ids: list[int]) -> Any:
        with torch.inference_mode():
            return loaded(input_ids=torch.tensor([ids])).logits[0].numpy()

    def answer(prompt: list[int]) -> list[int]:
        with torch.inference_mode():
            ids = loaded.generate(torch.tensor([prompt]), max_new_tokens=ANSWER_TOKENS, do_sample=False)
        return ids[0, len(prompt) :].tolist()

    nll = {kind: mean_nll(logits, pairs) for kind, pairs in texts.items()}
    return {**nll, "exact_match": exact_match(answer, model, texts)}


def exact_match(answer: Any, model: Path, texts: Texts) -> float:
    """Share of held-out questions that are answered as the reference does; `answer` goes on after a prompt."""
    from transformers import AutoTokenizer

    from phi3_assets.evaluation.metrics import judge_answer

    tokenizer = AutoTokenizer.from_pretrained(model)
    right = 0.0
    for prompt, wanted in texts["answers"]:
        said, reference = (tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in (answer(prompt), wanted))
        right += judge_answer(said, reference)["exact_match"] or 0.0
    return right / len(texts["answers"])


def mean_nll(logits: Any, pairs: list[tuple[list[int], list[int]]]) -> float:
    """Mean over texts of the mean NLL of their scored tokens; `logits` gives (tokens, vocabulary) for token ids."""
    from phi3_assets.evaluation.genai_scorer import mean_nll as of_one

    return sum(of_one(logits([*context, *scored[:-1]])[len(context) - 1 :], scored) for context, scored in pairs) / len(
        pairs
    )


def measure(
    work: Path,
    merged: Path,
    choice: str,
    fields: dict[str, Any],
    texts: Texts,
    torch_scores: dict[str, dict[str, float]],
) -> dict[str, float]:
    """Build one choice, and measure all but its speed."""
    from phi3_assets.models import genai
    from phi3_assets.steps import ONNX_INT4_MODEL

    inputs = {"merged_model": merged, "formatted_corpus": work / "formatted_corpus"}
    metrics = step(ONNX_INT4_MODEL, work, inputs, **fields)
    shutil.rmtree(built(work, choice), ignore_errors=True)
    (work / ONNX_INT4_MODEL.name).rename(built(work, choice))
    model = genai.load_model(built(work, choice))

    def logits(ids: list[int]) -> Any:
        generator = genai.new_generator(model, len(ids) + 1)
        generator.append_tokens(ids)
        return generator.get_output("logits")[0]

    nll = {kind: mean_nll(logits, pairs) for kind, pairs in texts.items()}
    base, best = torch_scores["base_model"]["answers"], torch_scores["merged_model"]["answers"]
    return {
        "mb": metrics["model_bytes"] / 1e6,
        **nll,
        "exact_match": exact_match(lambda prompt: list(genai.greedy(model, prompt, ANSWER_TOKENS)), merged, texts),
        "gain_kept": (base - nll["answers"]) / (base - best),
        "build_s": metrics["build_seconds"],
    }


def built(work: Path, choice: str) -> Path:
    """Where a choice's model is kept."""
    return work / f"int4 {choice}"


def decode_speed(path: Path, texts: Texts, tokens: int = 128) -> float:
    """Greedy tokens per second after a prompt."""
    from phi3_assets.models import genai

    prompt = texts["answers"][0][0]
    model = genai.load_model(path)
    generator = genai.new_generator(model, len(prompt) + tokens, min_length=len(prompt) + tokens)
    generator.append_tokens(prompt)
    started = time.perf_counter()
    while not generator.is_done():
        generator.generate_next_token()
    return tokens / (time.perf_counter() - started)
