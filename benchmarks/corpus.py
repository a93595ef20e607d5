"""A million rows, read to tokenised, against the tokenizer alone, datasets.map and Olive; or 1 % of them new; or long.

    python -m benchmarks corpus                 about six minutes
    python -m benchmarks corpus --incremental   about two
    python -m benchmarks corpus --wide          about four: rows of 50 KB
    python -m benchmarks corpus --shapes        about six: conversations of four shapes, and docstrings

Sides, each in processes of its own on the same cores: the two data steps with the default recipe and every check on;
the floor, which is the tokenizer's `encode_batch` of the very texts and nothing else; `datasets.map`; and Olive's own
`HuggingfaceContainer`. The rivals only tokenise whole texts: no checks, no label masks. On several shapes the rival is
`datasets.map` at its best, of one process with the tokenizer's threads and of as many as there are cores; quoted is
the shape on which we are worst. Conversations are random words of a few thousand, which come again and again;
docstrings are text that people wrote.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._corpus_sides import child, ours
from benchmarks._rows import SHAPES, write_chats, write_docstrings, write_rows

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
REPEATS = 3
SHAPE_WORDS = 12_000_000
"""Words of each shape, so that each has about as many tokens."""
SHAPE_SEQ_LEN = 4096


def run(arguments: list[str]) -> dict[str, Any]:
    """Measure; returns the JSON line."""
    parser = argparse.ArgumentParser(prog="benchmarks corpus", description=__doc__)
    parser.add_argument("--incremental", action="store_true", help="cost of 1 %% new rows in a new file")
    parser.add_argument("--wide", action="store_true", help="rows of 50 KB: memory must not grow with their length")
    parser.add_argument("--shapes", action="store_true", help="conversations, short and long, of one and more turns")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--base-model", type=Path, help="a model directory; default: the default recipe's base model")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="corpus-benchmark-") as name:
        work = Path(name)
        # In a process of its own: a child's peak memory starts at its parent's, and the step sets variables.
        model = str(options.base_model or child("base_model", str(work))["path"])
        if options.incremental:
            return incremental(work, model, options.rows or ROWS)
        if options.wide:
            return wide(work, model, options.rows or WIDE_ROWS)
        if options.shapes:
            return shapes(work, model, options.rows)
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


def shapes(work: Path, model: str, rows: int | None) -> dict[str, Any]:
    """Conversations of each shape, and docstrings, against the tokenizer alone and `datasets.map` at its best."""
    import os

    found = {}
    for shape in (*SHAPES, "docstrings"):
        if shape in SHAPES:
            question_words, answer_words, turns = SHAPES[shape]
            count = rows or SHAPE_WORDS // (turns * (question_words + answer_words))
            write_chats(work / shape, shape, count)
        else:
            count = write_docstrings(work / shape)
        floor = child("floor of chats", str(work / shape), model)
        made = ours(work / shape, work / f"of-{shape}", model, max_seq_len=SHAPE_SEQ_LEN)
        rival = min(
            child("map of chats", str(work / shape), model, processes)["wall_s"] for processes in (1, os.cpu_count())
        )
        found[shape] = {
            "rows": count,
            "tokens_per_row": round(made["tokens"] / made["rows"], 1),
            "times_floor": round(made["wall_s"] / floor["wall_s"], 3),
            "times_datasets_map": round(rival / made["wall_s"], 2),
            "wall_s": round(made["wall_s"], 1),
            "peak_mb": round(made["peak_mb"]),
        }
    table(
        [
            (
                shape,
                f"{one['rows']:>9,} rows of {one['tokens_per_row']:>6} tokens",
                f"{one['times_floor']:.2f} x encode_batch",
                f"{one['times_datasets_map']:.2f} x datasets.map",
                f"{one['peak_mb']} MB",
            )
            for shape, one in found.items()
        ]
    )
    worst = max(one["times_floor"] for one in found.values())
    against = min(one["times_datasets_map"] for one in found.values())
    return {
        "name": "corpus --shapes",
        "ratio": worst,
        "bar": BARS["wall"],
        "worst_times_datasets_map": against,
        "ok": worst <= BARS["wall"] and against >= BARS["datasets.map"],
        "shapes": found,
    }


def table(lines: list[tuple[str, ...]]) -> None:
    """Print lines of cells."""
    for name, *cells in lines:
        print(f"{name:<20}{'   '.join(cells)}")
