"""The sides of `benchmarks corpus`, each run in processes of its own: ours, the tokenizer alone, and the rivals."""

import ast
import csv
import json
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

FILES = 4
# Words of a question and of its answer, and how many of both a conversation has. A word is about 1.3 tokens.
SHAPES = {
    "questions": (8, 10, 1),
    "chat": (90, 150, 1),
    "documents": (1100, 75, 1),
    "several turns": (25, 45, 5),
}
DOCUMENTED = ("torch", "transformers", "pandas", "scipy", "numpy", "dagster", "azure", "matplotlib")
SAMPLE_S = 0.2


def _words() -> list[str]:
    """English words, in the order of the alphabet."""
    from pydoc_data.topics import topics

    return sorted({word for text in topics.values() for word in re.findall(r"\b[a-z]{2,10}\b", text)})


def write_docstrings(folder: Path) -> int:
    """Questions about the code that is installed here, answered by its docstrings: text that people wrote.

    Returns:
        Rows.
    """
    rows = 0
    folder.mkdir(exist_ok=True)
    with (folder / "docstrings.jsonl").open("w", encoding="utf-8") as out:
        for package in DOCUMENTED:
            for path in sorted((Path(sysconfig.get_path("purelib")) / package).rglob("*.py")):
                for name, text in _docstrings(path):
                    turns = [
                        {"role": "user", "content": f"What does {name} of {package} do?"},
                        {"role": "assistant", "content": text},
                    ]
                    out.write(json.dumps({"messages": turns}) + "\n")
                    rows += 1
    return rows


def _docstrings(path: Path) -> Iterator[tuple[str, str]]:
    with suppress(SyntaxError, UnicodeDecodeError):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
                yield node.name, text


def write_chats(folder: Path, shape: str, rows: int) -> None:
    """Conversations of random English words, a quarter longer or shorter than the shape says, in a few JSONL files."""
    words, chooser = _words(), random.Random(0)
    question_words, answer_words, turns = SHAPES[shape]

    def say(role: str, count: int) -> dict[str, str]:
        chosen = chooser.choices(words, k=chooser.randint(count * 3 // 4, count * 5 // 4))
        return {"role": role, "content": f"{' '.join(chosen).capitalize()}."}

    folder.mkdir(exist_ok=True)
    for part in range(FILES):
        with (folder / f"chats-{part}.jsonl").open("w", encoding="utf-8") as out:
            for _ in range(rows // FILES):
                pairs = [(say("user", question_words), say("assistant", answer_words)) for _ in range(turns)]
                out.write(json.dumps({"messages": [turn for pair in pairs for turn in pair]}) + "\n")


def write_rows(folder: Path, rows: int, name: str = "rows", seed: int = 0, answer_words: int = 0) -> None:
    """Questions and answers of random English words in the seed's columns, in a few CSV files."""
    words = _words()
    chooser = random.Random(seed)
    folder.mkdir(exist_ok=True)
    files = FILES if name == "rows" else 1
    for part in range(files):
        with (folder / f"{name}-{part}.csv").open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["Question", "Best Answer"])
            for _ in range(rows // files):
                question = " ".join(chooser.choices(words, k=chooser.randint(5, 10)))
                answer = " ".join(chooser.choices(words, k=answer_words or chooser.randint(6, 14)))
                writer.writerow([f"{question.capitalize()}?", f"{answer.capitalize()}."])


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
