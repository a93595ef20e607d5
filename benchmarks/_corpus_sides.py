"""The sides of `benchmarks corpus`, each run in processes of its own: ours, the tokenizer alone, and the rivals."""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

SAMPLE_S = 0.2


def _base_model(folder: str) -> dict[str, Any]:
    """The base model of the default recipe, as its step makes it."""
    from phi3_assets.core.recipe_file import load_recipe
    from phi3_assets.core.step import StepContext
    from phi3_assets.steps import BASE_MODEL

    work = Path(folder)
    output, cache = work / "base_model", Path.home() / ".cache" / "phi3-benchmarks"
    for path in (output, work / "base_work", cache):
        path.mkdir(parents=True, exist_ok=True)
    BASE_MODEL.load()(StepContext(BASE_MODEL.params(load_recipe("smol-cpu")), {}, output, work / "base_work", cache))
    return {"path": str(output)}


def ours(
    data: Path, home: Path, model: str, run_name: str = "first", test_sets: Path | None = None, **overrides: Any
) -> dict[str, Any]:
    """Both steps, one process each, handed their parameters, as the worker runs them; into home/<run>."""
    from phi3_assets.core.recipe_file import load_recipe
    from phi3_assets.steps import STEPS

    run = home / run_name
    for folder in (home / "cache", home / "work", *(run / name for name in ("raw_dataset", "formatted_corpus"))):
        folder.mkdir(parents=True, exist_ok=True)
    inputs = {
        "raw_dataset": {"datasets": str(data)} | ({"test_sets": str(test_sets)} if test_sets else {}),
        "formatted_corpus": {"raw_dataset": str(run / "raw_dataset"), "base_model": model},
    }
    params = {name: STEPS[name].params(load_recipe("smol-cpu", overrides)) for name in inputs}
    start = time.perf_counter()
    steps = {name: child("step", name, params[name], inputs[name], str(run / name), str(home)) for name in inputs}
    wall_s = time.perf_counter() - start
    corpus = steps["formatted_corpus"]["metrics"]
    return {
        "wall_s": wall_s,
        "peak_mb": max(step["peak_mb"] for step in steps.values()),
        "rows": corpus["train_rows"],
        "tokens": corpus["tokens"],
        "rows_tokenised": corpus["rows_tokenised"],
        "files_read": steps["raw_dataset"]["metrics"]["files_read"],
        "steps": {name: [round(step["wall_s"], 2), round(step["peak_mb"])] for name, step in steps.items()},
    }


def child(kind: str, *arguments: Any) -> dict[str, Any]:
    """Run one side in a process of its own; its answer is the last line that it prints.

    "peak_mb" is the most that it and its processes held at one time, shared libraries counted in each.
    """
    import psutil

    command = [sys.executable, "-m", "benchmarks._corpus_sides", kind]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(arguments))
        process.stdin.close()
        leader, peak = psutil.Process(process.pid), 0
        while process.poll() is None:
            held = 0
            for each in [leader, *leader.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    held += each.memory_info().rss
            peak = max(peak, held)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_S)
        lines = process.stdout.read().strip().splitlines()
    if process.returncode:
        raise RuntimeError(f"{kind} failed; its error is above.")
    return {**json.loads(lines[-1]), "peak_mb": peak / 1e6}


def _measured(start: float, **values: Any) -> dict[str, Any]:
    return {"wall_s": time.perf_counter() - start, **values}


def _step(name: str, params: dict[str, Any], inputs: dict[str, str], output: str, home: str) -> dict[str, Any]:
    from phi3_assets.core.step import StepContext
    from phi3_assets.data.arrow import leave_pandas_out
    from phi3_assets.steps import STEPS

    start = time.perf_counter()
    leave_pandas_out()
    metrics = STEPS[name].load()(
        StepContext(
            params=params,
            inputs={key: Path(value) for key, value in inputs.items()},
            output=Path(output),
            work=Path(home) / "work",
            cache=Path(home) / "cache",
        )
    )
    return _measured(start, metrics=metrics)


def _rows(data: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for path in sorted(Path(data).glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as lines:
            rows += csv.DictReader(lines)
    return rows


def _floor(data: str, model: str, at_once: int = 8192) -> dict[str, Any]:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    renderer = AutoTokenizer.from_pretrained(model)
    question, answer = "\ue000", "\ue001"
    pair = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    frame = renderer.apply_chat_template(pair, tokenize=False)
    texts = [frame.replace(question, row["Question"]).replace(answer, row["Best Answer"]) for row in _rows(data)]
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    start = time.perf_counter()
    for first in range(0, len(texts), at_once):
        tokenizer.encode_batch(texts[first : first + at_once], add_special_tokens=False)
    return _measured(start)


def _floor_of_chats(data: str, model: str) -> dict[str, Any]:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    renderer = AutoTokenizer.from_pretrained(model)
    lines = [line for path in sorted(Path(data).glob("*.jsonl")) for line in path.open(encoding="utf-8")]
    texts = [renderer.apply_chat_template(json.loads(line)["messages"], tokenize=False) for line in lines]
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    start = time.perf_counter()
    for first in range(0, len(texts), 1024):
        tokenizer.encode_batch(texts[first : first + 1024], add_special_tokens=False)
    return _measured(start)


def _map_of_chats(data: str, model: str, processes: int) -> dict[str, Any]:
    """`datasets.map` on conversations, with its own processes or with the tokenizer's threads."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def encode(batch: dict[str, list[Any]]) -> dict[str, Any]:
        texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
        return {"input_ids": tokenizer(texts, add_special_tokens=False)["input_ids"]}

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        files = [str(path) for path in sorted(Path(data).glob("*.jsonl"))]
        rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=cache)
        rows.map(encode, batched=True, remove_columns=["messages"], num_proc=processes if processes > 1 else None)
        return _measured(start)


def _datasets_map(data: str, model: str) -> dict[str, Any]:
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = AutoTokenizer.from_pretrained(model)

    def encode(batch: dict[str, list[str]]) -> dict[str, Any]:
        rows = zip(batch["Question"], batch["Best Answer"], strict=True)
        pairs = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in rows]
        texts = tokenizer.apply_chat_template(pairs, tokenize=False)
        return {"input_ids": tokenizer(texts, add_special_tokens=False)["input_ids"]}

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as cache:
        files = [str(path) for path in sorted(Path(data).glob("*.csv"))]
        rows = datasets.load_dataset("csv", data_files=files, split="train", cache_dir=cache)
        rows.map(encode, batched=True, remove_columns=["Question", "Best Answer"])
        return _measured(start)


def _olive(data: str, model: str) -> dict[str, Any]:
    import os

    os.environ["OLIVE_DISABLE_TELEMETRY"] = "1"
    from olive.data.config import DataConfig

    files = [str(path) for path in sorted(Path(data).glob("*.csv"))]
    template = "<|im_start|>user\n{Question}<|im_end|>\n<|im_start|>assistant\n{Best Answer}<|im_end|>\n"
    config = DataConfig(
        name="train",
        type="HuggingfaceContainer",
        load_dataset_config={"params": {"data_name": "csv", "data_files": files, "split": "train"}},
        pre_process_data_config={
            "params": {
                "text_template": template,
                "strategy": "line-by-line",
                "max_seq_len": 512,
                "pad_to_max_len": False,
                "add_special_tokens": False,
                "model_name": model,
                "task": "text-generation",
            }
        },
    )
    container = config.to_data_container()
    start = time.perf_counter()
    rows = container.pre_process(container.load_dataset())
    for i in range(len(rows)):
        rows[i]
    return _measured(start)


CHILDREN: dict[str, Callable[..., dict[str, Any]]] = {
    "base_model": _base_model,
    "step": _step,
    "floor": _floor,
    "floor of chats": _floor_of_chats,
    "datasets.map": _datasets_map,
    "map of chats": _map_of_chats,
    "olive": _olive,
}


if __name__ == "__main__":
    print(json.dumps(CHILDREN[sys.argv[1]](*json.loads(sys.stdin.read()))))
