"""Settings changed after the freeze: what was frozen is never trained on, and complies with the policies of now."""

import json
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi3_assets.core.errors import UserError
from phi3_assets_tests.data.running import Run


def write(run: Run, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> None:
    (run.data / name).write_text("\n".join(map(json.dumps, rows)))


def customers(count: int = 120) -> list[dict[str, Any]]:
    """Questions of 30 customers, four each; some hold an address, so that redaction changes them."""
    return [
        {
            "Question": f"Where is parcel {i} of user{i % 30}@shop{i}.example.com now?"
            if i % 2
            else f"How late is lorry {i} to town {i % 7}?",
            "Best Answer": f"Ask depot {i}.",
            "Customer": f"c{i % 30}",
            "Region": f"r{i % 11}",
            "Title": f"Title {i}",
            "Other Answer": f"Depot {i} knows.",
        }
        for i in range(count)
    ]


def test_set(run: Run) -> list[dict[str, Any]]:
    return pq.read_table(run.raw / "test_set.parquet").to_pylist()


test_set.__test__ = False  # type: ignore[attr-defined]


def asked(records: list[dict[str, Any]]) -> set[str]:
    return {record["messages"][0]["content"] for record in records}


def trained(run: Run) -> list[dict[str, Any]]:
    return [record for record in run.records() if record["split"] == "train"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path)
    write(run, customers())
    run.ingest()
    run.freeze()
    return run


def numbers(rows: list[dict[str, Any]]) -> set[int]:
    """Which rows of `customers` these are."""
    return {row["row"] for row in rows}


def test_a_group_column_set_later_holds_the_groups_of_test_rows_out(run: Run) -> None:
    """28 of 30 customers of test rows were trained on."""
    tested = numbers(test_set(run))
    groups = {customers()[row - 1]["Customer"] for row in tested}
    assert 3 < len(groups) < 30
    run.overrides["group_column"] = "Customer"
    run.ingest()
    assert trained(run)
    assert not {customers()[row - 1]["Customer"] for row in numbers(trained(run))} & groups
    # And once more under another one, from the test set that now lies there.
    run.overrides["group_column"] = "Region"
    run.overrides["test_share"] = 0.05
    rows = [row | {"Region": f"q{i}"} for i, row in enumerate(customers())]
    write(run, rows)
    run.ingest()
    assert trained(run)
    assert not numbers(trained(run)) & tested


def test_redaction_set_later_does_not_train_on_test_rows(run: Run) -> None:
    """48 of 51 test rows were trained on in redacted form: their ids and groups had changed."""
    tested = numbers(test_set(run))
    run.overrides["personal_data"] = "redact"
    metrics = run.ingest()
    assert not numbers(trained(run)) & tested
    assert numbers(test_set(run)) == tested
    assert not any("@" in question for question in asked(test_set(run)))
    assert any("<EMAIL_ADDRESS>" in question for question in asked(test_set(run)))
    assert metrics["test_rows_in_data"] > 0
    assert not metrics["test_set_is_new"]


def test_redaction_given_up_later_does_not_train_on_test_rows(tmp_path: Path) -> None:
    run = Run(tmp_path, personal_data="redact")
    write(run, customers())
    run.ingest()
    run.freeze()
    tested = numbers(test_set(run))
    run.overrides["personal_data"] = "report"
    run.ingest()
    assert trained(run)
    assert not numbers(trained(run)) & tested


def test_quarantine_set_later_takes_test_rows_out_of_the_test_set(run: Run) -> None:
    tested = test_set(run)
    with_data = [row for row in tested if "@" in row["messages"][0]["content"]]
    run.overrides["personal_data"] = "quarantine"
    metrics = run.ingest()
    assert metrics["test_rows_withheld"] == len(with_data) > 0
    assert metrics["test_rows_withheld_by_reason"] == {"personal_data": len(with_data)}
    assert numbers(test_set(run)) == numbers(tested) - numbers(with_data)
    assert any("take out of the test set" in line for line in run.log)
    # Given up again, they are tests as before, and never were anything else.
    run.overrides["personal_data"] = "report"
    assert run.ingest()["test_rows_withheld"] == 0
    assert numbers(test_set(run)) == numbers(tested)


def test_block_set_later_refuses_what_is_frozen(run: Run) -> None:
    rows = [row for row in customers() if "@" not in row["Question"]]
    write(run, rows)
    run.overrides["personal_data"] = "block"
    with pytest.raises(UserError, match="frozen test set hold personal data.*block.*phi3 testset"):
        run.ingest()


def test_a_frozen_row_whose_group_nobody_knows_refuses_the_run(run: Run) -> None:
    tested = numbers(test_set(run))
    write(run, [row for i, row in enumerate(customers(), 1) if i != min(tested)])
    run.ingest()  # by its question it is still known
    run.overrides["group_column"] = "Customer"
    with pytest.raises(UserError, match="1 of .* rows of the frozen test set are not in the data.*phi3 testset retire"):
        run.ingest()


def test_under_the_same_group_column_rows_may_leave_the_data(tmp_path: Path) -> None:
    run = Run(tmp_path, group_column="Customer")
    write(run, customers())
    run.ingest()
    run.freeze()
    tested = test_set(run)
    groups = {customers()[row - 1]["Customer"] for row in numbers(tested)}
    gone = min(numbers(tested))
    write(run, [row for i, row in enumerate(customers(), 1) if i != gone])
    run.overrides["test_share"] = 0.01
    run.ingest()
    left = [row for i, row in enumerate(customers(), 1) if i != gone]
    assert not {left[row - 1]["Customer"] for row in numbers(trained(run))} & groups


@pytest.mark.parametrize("changes", [{}, {"group_column": "Customer"}, {"personal_data": "redact"}])
def test_what_was_frozen_before_these_keys_were_kept_is_known_too(run: Run, changes: dict[str, Any]) -> None:
    """Test sets of old homes have neither the hash of the question nor the settings they were frozen under."""
    tested = numbers(test_set(run))
    out = BytesIO()
    pq.write_table(pq.read_table(BytesIO(run.versions()[0])).drop(["asked"]).replace_schema_metadata(None), out)
    run.set_versions([out.getvalue()])
    run.overrides.update(changes)
    metrics = run.ingest()
    assert trained(run)
    assert not numbers(trained(run)) & tested
    assert numbers(test_set(run)) == tested
    assert not metrics["test_set_is_new"]
    if "group_column" in changes:
        groups = {customers()[row - 1]["Customer"] for row in tested}
        assert not {customers()[row - 1]["Customer"] for row in numbers(trained(run))} & groups


def test_a_conversation_that_begins_with_a_frozen_question_is_not_trained_on(run: Run) -> None:
    """Under a group_column the first turns of a conversation were in nobody's key, and all its answers are learnt."""
    question = next(record["messages"][0]["content"] for record in test_set(run))
    turns = [question, "Soon.", "When is soon?", "At six."]
    messages = [{"role": "user" if i % 2 == 0 else "assistant", "content": content} for i, content in enumerate(turns)]
    write(run, [{"messages": messages, "Customer": "new"}], "chats.jsonl")
    run.overrides["group_column"] = "Customer"
    run.ingest()
    assert {record["split"] for record in run.records() if record["file"] == "chats.jsonl"} == {"held_out"}


CHANGES = {
    "group_column": ["", "Customer", "Region"],
    "personal_data": ["report", "redact", "quarantine"],
    "secrets": ["report", "redact", "quarantine"],
    "test_share": [0.05, 0.15, 0.4],
    "test_set": ["frozen", "grow"],
    "near_duplicates": ["report", "quarantine"],
    "near_duplicate_threshold": [0.5, 0.85, 1.0],
    "conflicts": ["report", "quarantine"],
    "answer_column": ["Best Answer", "Other Answer"],
    "question_column": ["Question", "Title"],
    "dataset_shape": ["auto", "qa"],
}
recipes = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in CHANGES.items()})


def column_of(record: dict[str, Any]) -> str:
    """Which column a record's question came from, however it was redacted since."""
    return "Title" if record["messages"][0]["content"].startswith("Title") else "Question"


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=recipes, later=st.lists(recipes, min_size=1, max_size=3), kept=st.integers(40, 72))
def test_no_settings_ever_let_a_frozen_question_into_training(
    first: dict[str, Any], later: list[dict[str, Any]], kept: int
) -> None:
    """Whatever is set before and after a freeze, a run trains on no question that was tested with, or is refused."""
    rows = customers(72)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder))
        write(run, rows)
        tested: set[tuple[int, str]] = set()
        for step, changes in enumerate([first, *later]):
            run.overrides = dict(changes)
            if step == 1:
                write(run, rows[:kept])
            try:
                metrics = run.ingest()
            except UserError:
                continue
            assert not {(row["row"], column_of(row)) for row in trained(run)} & tested
            if metrics["test_set_is_new"]:
                run.freeze()
                tested |= {(row["row"], column_of(row)) for row in test_set(run)}
