"""Files that are made to take the machine: each costs a file or a row with a reason, and little memory."""

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.data.read import columns, limits
from phi3_assets.data.read.readers import read_rows
from phi3_assets.data.read.rows import FileDamage
from phi3_assets.data.read.sources import list_files

DEEP = 100_000
GOOD = '{"Question": "Is [this] {nested}?", "Best Answer": "No, \\"[[[\\\\"}'
LINES = ([(1, "read"), (2, "too_deep"), (3, "read")], None)


def rows(folder: Path):
    """Rows of the only file, as (number, value or reason), and its damage."""
    found: list[tuple[int, object]] = []
    try:
        for row in read_rows(list_files(folder)[0][0])[1]:
            found.append((row.number, row.reason or "read"))
    except FileDamage as damage:
        return found, damage.reason
    return found, None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("whole.json", "[" * DEEP + "]" * DEEP, ([], "too_deep")),
        ("objects.json", '{"a":' * DEEP + "1" + "}" * DEEP, ([], "too_deep")),
        ("in_a_row.json", f'[{GOOD}, {{"a": {"[" * DEEP}{"]" * DEEP}}}]', ([], "too_deep")),
        ("hidden.json", f'["]]]]", {"[" * DEEP}{"]" * DEEP}]', ([], "too_deep")),
        ("line.jsonl", f"{GOOD}\n{'[' * DEEP}{']' * DEEP}\n{GOOD}\n", LINES),
        ("line.json", f"{GOOD}\n{'[' * DEEP}{']' * DEEP}\n{GOOD}\n", LINES),
        ("number.json", f"[{GOOD}, {'1' * 4301}]", ([], "too_large")),
        ("piece.json", f'["{"x" * 65_000}", {{"a": -{"1" * 4301}}}]', ([], "too_large")),
        ("number.jsonl", f'{GOOD}\n{{"a": {"1" * 4301}}}\n', ([(1, "read"), (2, "invalid_json")], None)),
        ("pi.json", f'[{{"Question": "pi?", "Best Answer": "3.{"1" * 9999} \\" 3"}}]', ([(1, "read")], None)),
    ],
)
def test_what_is_made_to_take_the_machine_is_named(tmp_path, name, text, expected):
    """200 KB of nested JSON took 17.7 GiB, and a number of 5 KB a segmentation fault; in a process with 2 GiB."""
    (tmp_path / name).write_text(text)
    code = f"from {__name__} import *; print(rows(Path({str(tmp_path)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30)),
    )
    assert done.stdout.strip() == repr(expected), done.stderr[-500:]


def test_what_only_looks_deep_is_read(tmp_path):
    """Brackets, quotes and backslashes in texts are no nesting, wherever a piece of the file is cut."""
    texts = ["[" * 500, '{"' * 200, "\\" * 301, '\\"[' * 100, "plain"] * 200
    value = [{"Question": text, "Best Answer": text + str(i)} for i, text in enumerate(texts)]
    (tmp_path / "a.json").write_text(json.dumps({"data": {"rows": value}}, indent=1))
    found, damage = rows(tmp_path)
    assert damage is None
    assert len(found) == len(value)


def test_the_guard_agrees_at_every_cut():
    text = json.dumps([{"a": '\\"[{', "b": [[["\\"]]]}], ensure_ascii=False).encode()
    for size in range(1, len(text)):
        guard = limits.JsonGuard()
        for at in range(0, len(text), size):
            guard.check(text[at : at + size])
        assert (guard._depth, guard.in_string) == (0, False)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "b.json", "a.jsonl.gz"])
def test_a_row_without_end_is_not_held(tmp_path, monkeypatch, name):
    """A line of gigabytes, or a small .gz that unpacks to one, was read whole."""
    monkeypatch.setattr(limits, "MAX_ROW_CHARS", 1 << 18)
    good, endless = json.dumps({"Question": "q", "Best Answer": "a"}), "x" * (1 << 20)
    text = {
        "a.csv": f"Question,Best Answer\nq,a\n{endless},a\nq,a\n",
        "a.json": f'[{good}, {{"Question": "{endless}", "Best Answer": "a"}}, {good}]',
        "b.json": f'{{"{endless}": [{good}]}}',
    }.get(name, f'{good}\n{{"Question": "{endless}"}}\n{good}\n')
    (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found, damage = rows(tmp_path)
    if name.endswith(".json"):
        assert damage == "too_large"
        assert found in ([], [(1, "read")])
    else:
        assert found == [(1, "read"), (2, "too_large"), (3, "read")]


def test_a_parquet_that_unpacks_beyond_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "MAX_UNPACKED_BYTES", 1000)
    pq.write_table(pa.table({"Question": ["q" * 5000], "Best Answer": ["a"]}), tmp_path / "a", compression="none")
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress((tmp_path / "a").read_bytes()))
    assert rows(tmp_path) == ([], "too_large")
