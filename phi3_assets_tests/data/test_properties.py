"""Whatever bytes a file holds, each of its rows is kept or quarantined; the split is a function of the group."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phi3_assets.data.judge.split import hash_split
from phi3_assets_tests.data.running import Run, write_sample

quick = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
fields = st.text(max_size=30)


NAMES = ["x.csv", "x.tsv", "x.json", "x.jsonl", "x.csv.gz", "x.parquet", "x.arrow", "x.xlsx", "x.xls", "x.ods"]


def outcomes(content: bytes, names: list[str]) -> dict[str, dict[str, Any]]:
    """Ingest files of this content beside some good rows."""
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        write_sample(run.data, 60)
        for name in names:
            (run.data / name).write_bytes(content)
        metrics = run.ingest()
        quarantine, records = run.quarantine(), run.records()
    found = {}
    for name in names:
        entry = next(entry for entry in metrics["files"] if entry["file"] == name)
        quarantined = [row for row in quarantine if row["file"] == name]
        kept = [record for record in records if record["file"] == name]
        rows = [row for row in quarantined if "rest_of_file" not in row]
        assert entry["rows"] == len(kept) + len(rows), name
        assert sorted([r["row"] for r in kept] + [r["row"] for r in rows]) == list(range(1, entry["rows"] + 1)), name
        assert all(row["reason"] for row in quarantined), name
        assert bool(entry["problem"]) or entry["rows"] == len(kept) + len(rows), name
        found[name] = {**entry, "records": kept}
    return found


def outcome(content: bytes, name: str) -> dict[str, Any]:
    """The same of one file."""
    return outcomes(content, [name])[name]


@quick
@given(content=st.binary(max_size=200))
@example(content=b"")
@example(content=b"\xff\xfe")
@example(content=b"\x00")
@example(content=b'Question,Best Answer\n"a\n')
@example(content=b'[{"Question": "\\ud800", "Best Answer": "x"}]')
@example(content=b"[" * 150)
def test_any_bytes_end_in_rows_or_reasons(content: bytes) -> None:
    """Under every name at once; a row that was under another one before is quarantined as its duplicate."""
    outcomes(content, NAMES)


@quick
@given(rows=st.lists(st.tuples(fields, fields), max_size=8))
def test_a_csv_keeps_every_row_with_text(rows: list[tuple[str, str]]) -> None:
    """What a csv writer writes comes back, or is quarantined: rows are not lost to quotes, line ends or delimiters."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("Question", "Best Answer"), *rows])
    entry = outcome(text.getvalue().encode("utf-8", "surrogatepass"), "x.csv")
    assert entry["rows"] == len(rows)


@quick
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["Question", "Best Answer", "x"]),
            st.none() | fields | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        )
    )
)
@example(rows=[{"Question": 10**30, "Best Answer": 0.1}])
def test_json_and_jsonl_agree(rows: list[dict[str, Any]]) -> None:
    rows = [{"Question": "First?", "Best Answer": "Yes."}, *rows]
    lines = outcome("\n".join(json.dumps(row) for row in rows).encode(), "x.jsonl")
    array = outcome(json.dumps({"all": {"rows": rows}}).encode(), "x.json")
    assert lines["rows"] == array["rows"] == len(rows)
    assert [record["messages"] for record in lines["records"]] == [record["messages"] for record in array["records"]]


@quick
@given(
    groups=st.lists(st.integers(0, 2**64 - 1), min_size=1),
    more=st.lists(st.integers(0, 2**64 - 1)),
    share=st.floats(0.01, 0.99),
)
def test_split_is_a_pure_function_of_the_group(groups: list[int], more: list[int], share: float) -> None:
    alone = hash_split(np.array(groups, np.uint64), share)
    assert hash_split(np.array(groups + more, np.uint64), share)[: len(groups)].tolist() == alone.tolist()
    assert hash_split(np.array(groups[::-1], np.uint64), share)[::-1].tolist() == alone.tolist()


def test_split_does_not_move_when_rows_come_reordered_or_twice(tmp_path: Path) -> None:
    sides = []
    for name, mangle in (("a", lambda x: x), ("b", lambda x: x[::-1]), ("c", lambda x: x + x), ("d", lambda x: x[:40])):
        run = Run(tmp_path / name)
        write_sample(run.data, 90)
        lines = (run.data / "sample.jsonl").read_text().splitlines()
        (run.data / "sample.jsonl").write_text("\n".join(mangle(lines)))
        run.ingest()
        sides.append({record["id"]: record["split"] for record in run.records()})
    assert sides[0] == sides[1] == sides[2]
    assert sides[3].items() <= sides[0].items()
    share = list(sides[0].values()).count("test") / len(sides[0])
    assert 0.05 < share < 0.3
