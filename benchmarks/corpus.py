"""A million rows, read to tokenised, against the tokenizer alone, datasets.map and Olive; or 1 % of them new; or long.

    python -m benchmarks corpus                 about six minutes
    python -m benchmarks corpus --incremental   about two
    python -m benchmarks corpus --wide          about four: rows of 50 KB

Sides, each in processes of its own on the same cores: the two data steps with the default recipe and every check on;
the floor, which is the tokenizer's `encode_batch` of the very texts and nothing else; `datasets.map`; and Olive's own
`HuggingfaceContainer`. The rivals only tokenise whole texts: no checks, no label masks.
"""

import argparse
import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ROWS = 1_000_000
FEWER_ROWS = 200_000
RIVAL_ROWS = {"datasets.map": 100_000, "olive": 10_000}
BARS = {
    "wall": 1.5,
    "peak_mb": 1500,
    "growth": 1.15,
    "datasets.map": 1.3,
    "olive": 10.0,
    "incremental": 0.05,
    "wide_mb": 1000,
}
WIDE_ROWS, WIDE_WORDS = 4_000, 7_600
WIDE_SEQ_LEN = 32_768
FILES = 4
REPEATS = 3
SAMPLE_S = 0.2


def run(arguments: list[str]) -> dict[str, Any]:
    """Measure; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="benchmarks corpus", description=__doc__)
    parser.add_argument("--incremental", action="store_true", help="cost of 1 %% new rows in a new file")
    parser.add_argument("--wide", action="store_true", help="rows of 50 KB: memory must not grow with their length")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--base-model", type=Path, help="a model directory; default: the default recipe's base model")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return CHILDREN[options.child](*json.loads(sys.stdin.read()))
    with tempfile.TemporaryDirectory(prefix="corpus-benchmark-") as name:
        work = Path(name)
        # In a process of its own: a child's peak memory starts at its parent's, and the step sets variables.
        model = str(options.base_model or child("base_model", str(work))["path"])
        if options.incremental:
            return incremental(work, model, options.rows or ROWS)
        if options.wide:
            return wide(work, model, options.rows or WIDE_ROWS)
        return full(work, model, options.rows or ROWS)


def full(work: Path, model: str, rows: int) -> dict[str, Any]:
    """Ours against the floor and the rivals, and memory against the number of rows."""
    write_rows(work / "many", rows)
    write_rows(work / "fewer", FEWER_ROWS)
    floor = child("floor", str(work / "many"), model)
    many = ours(work / "many", work / "of-many", model)
    fewer = ours(work / "fewer", work / "of-fewer", model)
    per_s = {"this package": rows / many["wall_s"], "encode_batch": rows / floor["wall_s"]}
    for rival, count in RIVAL_ROWS.items():
        write_rows(work / rival, count)
        per_s[rival] = count / child(rival, str(work / rival), model)["wall_s"]
    result = {
        "name": "corpus",
        "ratio": round(many["wall_s"] / floor["wall_s"], 3),
        "bar": BARS["wall"],
        "rows": rows,
        "wall_s": round(many["wall_s"], 1),
        "floor_s": round(floor["wall_s"], 1),
        "tokens_per_row": round(many["tokens"] / many["rows"], 1),
        "peak_mb": round(many["peak_mb"]),
        "peak_growth": round(many["peak_mb"] / fewer["peak_mb"], 3),
        "times_olive": round(per_s["this package"] / per_s["olive"], 1),
        "times_datasets_map": round(per_s["this package"] / per_s["datasets.map"], 2),
        "rows_per_s": {name: round(value) for name, value in per_s.items()},
        "steps": many["steps"],
    }
    result["ok"] = (
        result["ratio"] <= BARS["wall"]
        and result["peak_mb"] <= BARS["peak_mb"]
        and result["peak_growth"] <= BARS["growth"]
        and result["times_olive"] >= BARS["olive"]
        and result["times_datasets_map"] >= BARS["datasets.map"]
    )
    table(
        [
            ("rows/s", *(f"{name} {value:,.0f}" for name, value in per_s.items())),
            ("wall", f"{many['wall_s']:.1f} s", f"{result['ratio']:.2f} x encode_batch", f"bar {BARS['wall']}"),
            ("peak memory", f"{many['peak_mb']:.0f} MB at {rows:,} rows", f"bar {BARS['peak_mb']} MB"),
            ("growth", f"{result['peak_growth']:.2f} x from {FEWER_ROWS:,} rows", f"bar {BARS['growth']}"),
            ("over datasets.map", f"{result['times_datasets_map']:.2f} x", f"bar {BARS['datasets.map']}"),
            ("over Olive", f"{result['times_olive']:.1f} x", f"bar {BARS['olive']}"),
        ]
    )
    return result


def incremental(work: Path, model: str, rows: int) -> dict[str, Any]:
    """One per cent new rows in a new file, after the test set of the first run was frozen; thrice, the median."""
    write_rows(work / "data", rows)
    first = ours(work / "data", work / "home", model)
    (work / "test-sets" / "present").mkdir(parents=True)
    frozen = work / "home" / "first" / "raw_dataset" / "test_set.parquet"
    (work / "test-sets" / "present" / "000001.parquet").write_bytes(frozen.read_bytes())
    later = []
    for seed in range(1, REPEATS + 1):
        write_rows(work / "data", rows // 100, name=f"new-{seed}", seed=seed)
        later.append(ours(work / "data", work / "home", model, f"later-{seed}", work / "test-sets"))
    second = sorted(later, key=lambda run: run["wall_s"])[REPEATS // 2]
    result = {
        "name": "corpus --incremental",
        "ratio": round(second["wall_s"] / first["wall_s"], 4),
        "bar": BARS["incremental"],
        "rows": rows,
        "first_s": round(first["wall_s"], 1),
        "second_s": round(second["wall_s"], 2),
        "all_s": [round(run["wall_s"], 2) for run in later],
        "rows_tokenised": second["rows_tokenised"],
        "files_read": second["files_read"],
        "steps": second["steps"],
    }
    result["ok"] = result["ratio"] <= result["bar"]
    table(
        [
            ("first run", f"{rows:,} rows", f"{first['wall_s']:.1f} s"),
            ("1 % new rows", f"{second['rows_tokenised']:,} tokenised", f"{second['wall_s']:.2f} s"),
            ("ratio", f"{result['ratio']:.3f}", f"bar {result['bar']}"),
        ]
    )
    return result


def wide(work: Path, model: str, rows: int) -> dict[str, Any]:
    """Rows of 50 KB, some hundred megabytes of them, against the tokenizer alone."""
    write_rows(work / "wide", rows, answer_words=WIDE_WORDS)
    floor = child("floor", str(work / "wide"), model, 32)
    made = ours(work / "wide", work / "of-wide", model, max_seq_len=WIDE_SEQ_LEN)
    result = {
        "name": "corpus --wide",
        "ratio": round(made["wall_s"] / floor["wall_s"], 3),
        "bar": BARS["wall"],
        "rows": rows,
        "mb": round(sum(path.stat().st_size for path in (work / "wide").iterdir()) / 1e6),
        "wall_s": round(made["wall_s"], 1),
        "floor_s": round(floor["wall_s"], 1),
        "peak_mb": round(made["peak_mb"]),
        "peak_bar_mb": BARS["wide_mb"],
        "steps": made["steps"],
    }
    result["ok"] = result["ratio"] <= BARS["wall"] and result["peak_mb"] <= BARS["wide_mb"]
    table(
        [
            ("wall", f"{made['wall_s']:.1f} s", f"{result['ratio']:.2f} x encode_batch", f"bar {BARS['wall']}"),
            ("peak memory", f"{made['peak_mb']:.0f} MB at {result['mb']} MB", f"bar {BARS['wide_mb']} MB"),
        ]
    )
    return result


def table(lines: list[tuple[str, ...]]) -> None:
    """Print lines of cells."""
    for name, *cells in lines:
        print(f"{name:<20}{'   '.join(cells)}")


def write_rows(folder: Path, rows: int, name: str = "rows", seed: int = 0, answer_words: int = 0) -> None:
    """Questions and answers of random English words in the seed's columns, in a few CSV files."""
    from pydoc_data.topics import topics

    words = sorted({word for text in topics.values() for word in re.findall(r"\b[a-z]{2,10}\b", text)})
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

    command = [sys.executable, "-m", "benchmarks.corpus", "--child", kind]
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


CHILDREN = {"base_model": _base_model, "step": _step, "floor": _floor, "datasets.map": _datasets_map, "olive": _olive}


if __name__ == "__main__":
    result = run(sys.argv[1:])
    print(json.dumps(result))
    sys.exit(0 if result.get("ok", True) else 1)
