"""The test set is frozen at first use, grows only on request, and no row of any test set is ever trained on."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets_tests.data.running import Run, bytes_of, write_model, write_sample


def rows_of(run: Run, version: int) -> dict[str, str]:
    table = pq.read_table(BytesIO(run.versions()[version - 1]))
    return {row["id"]: row["messages"][0]["content"] for row in table.to_pylist()}


def changed(version: bytes, change: Callable[[pa.Table], pa.Table]) -> bytes:
    out = BytesIO()
    pq.write_table(change(pq.read_table(BytesIO(version))), out)
    return out.getvalue()


def sides(run: Run) -> dict[str, str]:
    return {record["messages"][0]["content"]: record["split"] for record in run.records()}


def add(run: Run, name: str, rows: list[tuple[str, str]]) -> None:
    lines = [json.dumps({"Question": question, "Best Answer": answer}) for question, answer in rows]
    (run.data / name).write_text("\n".join(lines))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    write_sample(run.data, 90)
    assert run.ingest()["test_set_is_new"]
    return run


def test_freezing_changes_nothing(run: Run) -> None:
    """So a run after the first one may reuse all that was made from the first raw_dataset."""
    before = bytes_of(run.raw)
    run.freeze()
    metrics = run.ingest()
    assert bytes_of(run.raw) == before
    assert not metrics["test_set_is_new"]
    assert metrics["test_set_versions"] == ["000001"]


def test_new_rows_on_the_test_side_are_held_out_until_it_grows(run: Run, tmp_path: Path) -> None:
    run.freeze()
    frozen = rows_of(run, 1)
    add(run, "more.jsonl", [(f"Is number {word} prime or not?", f"Ask {word}.") for word in map(str, range(100, 160))])
    metrics = run.ingest()
    assert metrics["held_out_rows"] > 0
    assert metrics["test_set_rows"] == len(frozen)
    held_out = {question for question, side in sides(run).items() if side == "held_out"}
    assert not held_out & set(frozen.values())

    run.overrides["test_set"] = "grow"
    grown = run.ingest()
    assert grown["test_set_is_new"]
    assert grown["held_out_rows"] == 0
    run.freeze()
    assert set(rows_of(run, 2).values()) == set(frozen.values()) | held_out
    run.corpus(write_model(tmp_path / "model"))
    assert {item["question"] for item in run.tests()} == set(rows_of(run, 2).values())


def test_the_test_set_outlives_its_rows(run: Run, tmp_path: Path) -> None:
    run.freeze()
    write_sample(run.data, 30)
    metrics = run.ingest()
    assert metrics["test_rows"] < metrics["test_set_rows"] == len(rows_of(run, 1))
    run.corpus(write_model(tmp_path / "model"))
    assert {item["id"] for item in run.tests()} == set(rows_of(run, 1))


def test_rows_of_every_past_test_set_stay_out_of_training(run: Run) -> None:
    """A smaller test_share would otherwise put rows that models were judged on into training."""
    run.freeze()
    run.overrides["test_share"] = 0.01
    questions = set(rows_of(run, 1).values())
    write_sample(run.data, 90)
    # A second version without most of those rows makes them past ones.
    run.set_versions([*run.versions(), changed(run.versions()[0], lambda table: table.slice(0, 2))])
    run.ingest()
    found = {side for question, side in sides(run).items() if question in questions}
    assert found == {"test", "held_out"}


def test_a_near_copy_of_any_test_row_is_removed_from_training(run: Run) -> None:
    long = "How do I restart the service called {} on the second web server without dropping open connections?"
    names = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett"]
    add(run, "long.jsonl", [(long.format(name), f"Use systemctl reload {name}, not restart.") for name in names])
    run.ingest()
    tested = next(question for question, side in sides(run).items() if side == "test" and "service" in question)
    run.freeze()
    answer = next(r["messages"][1]["content"] for r in run.records() if r["messages"][0]["content"] == tested)
    copies = [tested.replace("service", f"servic{letter}") for letter in "abcdfghijk"]
    add(run, "copies.jsonl", [(copy, answer) for copy in copies])
    metrics = run.ingest()
    # Those that the hash puts on the test side are held out anyway.
    assert metrics["leaked_rows_removed"] == metrics["quarantined_by_reason"]["near_duplicate_of_test"] > 5
    assert not any(side == "train" for question, side in sides(run).items() if question in copies)
    lines = [json.loads(line) for line in (run.raw / "near_duplicates.jsonl").read_text().splitlines()]
    assert {line["file"] for line in lines} == {"copies.jsonl"}
    # The same template about another service is no copy: its answer differs.
    assert sum(side == "train" for question, side in sides(run).items() if "service" in question) > 5

    # Gone from the present test set, it is still a past one's.
    others = changed(
        run.versions()[0],
        lambda table: table.filter([row["messages"][0]["content"] != tested for row in table.to_pylist()]),
    )
    run.set_versions([*run.versions(), others])
    assert run.ingest()["leaked_rows_removed"] == metrics["leaked_rows_removed"]


def test_a_damaged_test_set_stops_the_run(run: Run) -> None:
    run.freeze()
    (file,) = run.version_files("present")
    whole = file.read_bytes()
    file.write_bytes(whole[:-9])
    with pytest.raises(UserError, match=r"000001.parquet cannot be read .* Restore it"):
        run.ingest()
    # In the texts, which are read last.
    content = pq.ParquetFile(BytesIO(whole)).metadata.row_group(0).column(2)
    start = content.dictionary_page_offset or content.data_page_offset
    assert "content" in content.path_in_schema
    file.write_bytes(
        whole[:start] + bytes(content.total_compressed_size) + whole[start + content.total_compressed_size :]
    )
    with pytest.raises(UserError, match=r"000001.parquet cannot be read .* Restore it"):
        run.ingest()
