"""A person's rows are erased from what is frozen, and stay out of training by their hashes."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.data.judge.forget import Wanted, erase, holds
from phi3_assets_tests.data.running import Run

NAME = "Zebra Canary"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path, group_column="Customer", test_share=0.4)
    names = [NAME if i % 4 == 0 else "Bob" for i in range(60)]
    rows = [
        {"Question": f"Where is parcel {i} of {name}?", "Best Answer": f"Depot {i}.", "Customer": f"c{i}"}
        for i, name in enumerate(names)
    ]
    (run.data / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run.ingest()
    run.freeze()
    return run


def test_set(run: Run) -> list[dict]:
    return pq.read_table(run.raw / "test_set.parquet").to_pylist()


test_set.__test__ = False


@pytest.mark.parametrize("by", ["id", "match", "group"])
def test_rows_are_erased_and_never_trained_on(run: Run, by: str) -> None:
    theirs = [row for row in test_set(run) if NAME in row["messages"][0]["content"]]
    assert 0 < len(theirs) < len(test_set(run))
    parcel = [row["row"] for row in theirs]
    wanted = {
        "id": Wanted(ids=frozenset(row["id"] for row in theirs)),
        "match": Wanted(pattern="zebra c"),
        "group": Wanted(groups=frozenset(f"c{row - 1}" for row in parcel)),
    }[by]
    assert holds(run.raw, wanted, "Customer") >= 2 * len(theirs)
    content, rows, ids = erase(run.versions()[0], wanted)
    assert (rows, ids) == (len(theirs), {row["id"] for row in theirs})
    assert NAME.encode() not in content
    run.set_versions([content])
    for overrides in ({}, {"group_column": ""}, {"test_set": "grow"}, {"test_share": 0.01}):
        run.overrides = {"group_column": "Customer", "test_share": 0.4} | overrides
        metrics = run.ingest()
        assert metrics["test_set_rows"] == len(test_set(run))
        assert not [row for row in test_set(run) if NAME in row["messages"][0]["content"]]
        assert not {row["row"] for row in run.records() if row["split"] != "held_out"} & set(parcel)
    assert erase(content, wanted)[1] == 0


def test_retired_and_forgotten_rows_are_not_proposed_again(run: Run) -> None:
    content, _, _ = erase(run.versions()[0], Wanted(pattern=NAME))
    run.set_versions([content], present=False)
    assert run.ingest()["test_set_is_new"]
    assert not [row for row in test_set(run) if NAME in row["messages"][0]["content"]]


def test_nobody_and_no_expression_are_refused():
    with pytest.raises(UserError, match="--id, --match or --group"):
        Wanted()
    with pytest.raises(UserError, match="no regular expression"):
        Wanted(pattern="(")
