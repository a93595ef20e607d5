"""A seeded fault for each thing that the checks judge: each is found, counted and named by file and row."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.data.tokens.corpus_rows import TOKENS_SCHEMA, CorpusRows
from phi3_assets_tests.data.running import CHATML, Run, write_model, write_sample

# Numbers that card issuers and detect-secrets publish for tests; the key is nobody's.
CARD = "4111 1111 1111 1111"
KEY = "AKIAIOSFODNN7EXAMPLE"


def seeded(tmp_path: Path, rows: list[tuple[str, str]], **overrides) -> Run:
    run = Run(tmp_path, **overrides)
    write_sample(run.data, 90)
    lines = [json.dumps({"Question": question, "Best Answer": answer}) for question, answer in rows]
    (run.data / "seeded.jsonl").write_text("\n".join(lines))
    return run


def test_a_leaked_row(tmp_path: Path) -> None:
    """The split cannot leak, so the proof is made on the result: here a tampered raw_dataset."""
    run = seeded(tmp_path, [("What is new?", "Nothing.")])
    run.ingest()
    block = next((run.raw / "records.parquet").iterdir())
    table = pq.read_table(block)
    sides = ["train"] * table.num_rows
    pq.write_table(table.set_column(table.schema.get_field_index("split"), "split", pa.array(sides)), block)
    metrics = run.corpus(write_model(tmp_path / "model"))
    assert metrics["train_test_overlap"] == metrics["test_rows"] > 0


def test_exact_duplicates_keep_the_first(tmp_path: Path) -> None:
    run = seeded(tmp_path, [("Twice?", "Yes."), ("  Twice?", "Yes.\n"), ("Twice?", "Yes.")])
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {"duplicate": 2}
    assert metrics["defective_share"] == 0
    assert [line["row"] for line in run.quarantine()] == [2, 3]


@pytest.mark.parametrize("policy", ["report", "quarantine"])
def test_near_duplicates(tmp_path: Path, policy: str) -> None:
    text = "Please restart the mail server in the cellar of building {} before noon on Monday"
    rows = [
        (text.format("seven"), "It was restarted and works."),
        (text.format("sevem"), "It was restarted and works!"),
    ]
    run = seeded(tmp_path, rows, near_duplicates=policy, test_share=0.1)
    metrics = run.ingest()
    assert metrics["near_duplicate_rows"] == 1
    assert metrics["quarantined_by_reason"] == ({"near_duplicate": 1} if policy == "quarantine" else {})
    lines = [json.loads(line) for line in (run.raw / "near_duplicates.jsonl").read_text().splitlines()]
    assert lines == [{"file": "seeded.jsonl", "row": 2, "resembles": {"file": "seeded.jsonl", "row": 1}}]


def test_another_number_is_another_fact(tmp_path: Path) -> None:
    """Rows from one template are alike; if they were near duplicates, a price list would lose all its rows but one."""
    question = "What does the long and always equal message with the number {} mean to all of us here today?"
    answer = "The number {} means that everything is fine and that nothing at all has to be done about it."
    run = seeded(
        tmp_path, [(question.format(i), answer.format(i)) for i in range(100, 160)], near_duplicates="quarantine"
    )
    metrics = run.ingest()
    assert metrics["rows_quarantined"] == metrics["near_duplicate_rows"] == 0


@pytest.mark.parametrize("policy", ["report", "quarantine"])
def test_conflicting_answers(tmp_path: Path, policy: str) -> None:
    rows = [("Is it safe to proceed?", "Yes."), ("is it SAFE to proceed ?", "No."), ("Is it safe to proceed!", "yes")]
    run = seeded(tmp_path, rows, conflicts=policy, test_share=0.1)
    metrics = run.ingest()
    assert (metrics["conflicting_questions"], metrics["conflicting_rows"]) == (1, 3)
    assert metrics["quarantined_by_reason"] == ({"conflicting_answer": 3} if policy == "quarantine" else {})
    conflicts = [json.loads(line) for line in (run.raw / "conflicts.jsonl").read_text().splitlines()]
    assert conflicts == [{"rows": [{"file": "seeded.jsonl", "row": row} for row in (1, 2, 3)]}]


@pytest.mark.parametrize("policy", ["report", "redact", "quarantine", "block"])
@pytest.mark.parametrize(
    ("field", "text", "kind", "reason"),
    [("personal_data", CARD, "CREDIT_CARD", "personal_data"), ("secrets", KEY, "AWS_ACCESS_KEY", "secret")],
)
def test_personal_data_and_secrets(tmp_path: Path, policy: str, field: str, text: str, kind: str, reason: str) -> None:
    run = seeded(tmp_path, [("Which one was it?", f"It was {text}, I think.")], **{field: policy})
    if policy == "block":
        with pytest.raises(UserError) as caught:
            run.ingest()
        assert f"Found: 1 {kind}; in seeded.jsonl (1 rows)" in str(caught.value)
        assert f"set {field} to redact" in str(caught.value)
        assert text not in str(caught.value)
        return
    metrics = run.ingest()
    assert metrics[field] == {kind: 1}
    assert metrics[f"rows_with_{field}"] == 1
    assert metrics["quarantined_by_reason"] == ({reason: 1} if policy == "quarantine" else {})
    answers = [r["messages"][-1]["content"] for r in run.records() if r["file"] == "seeded.jsonl"]
    kept = {"report": [f"It was {text}, I think."], "redact": [f"It was <{kind}>, I think."], "quarantine": []}
    assert answers == kept[policy]
    if policy != "report":
        raw = b"".join(path.read_bytes() for path in run.raw.rglob("*") if path.is_file())
        assert text.encode() not in raw
        assert text not in json.dumps(metrics)


def test_control_characters_and_undecodable_text(tmp_path: Path) -> None:
    run = seeded(
        tmp_path, [("Bell\x07?", "a"), ("Good?", "tab\tand\nline"), ("Broken \ufffd?", "b"), ("Half \ud83d?", "c")]
    )
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {"control_characters": 1, "undecodable": 2}


def test_two_begin_tokens(tmp_path: Path) -> None:
    """As in trl #1400 and unsloth #2648: the template writes the begin token, and something else does so too."""
    run = seeded(tmp_path, [])
    run.ingest()
    doubled = "{{ bos_token }}" * 2 + CHATML
    metrics = run.corpus(write_model(tmp_path / "model", doubled, begin="<|endoftext|>"))
    assert metrics["rows_with_two_begin_tokens"] == metrics["train_rows"] > 0


def test_a_fully_masked_row() -> None:
    """Cannot come from data (there is always an answer), so the count itself is tried."""
    columns = [["a", "b"], [[1, 5, 6], [1, 7]], [[-100] * 3, [-100, 7]], [3, 2]]
    table = pa.Table.from_arrays(
        [pa.array(column, kind.type) for column, kind in zip(columns, TOKENS_SCHEMA, strict=True)], schema=TOKENS_SCHEMA
    )
    stats = CorpusRows(table, np.zeros(2, np.uint64), np.zeros(2, np.uint8)).stats(begin_id=1)
    assert (stats.rows_fully_masked, stats.supervised_tokens, stats.tokens) == (1, 1, 5)


def test_groups_stay_together(tmp_path: Path) -> None:
    """Questions about one document must not stand on both sides (extract0 #1: split by chunk, not by document)."""
    run = Run(tmp_path, group_column="doc", test_share=0.4)
    rows = [{"Question": f"Question {i}?", "Best Answer": f"{i}.", "doc": i % 12} for i in range(120)]
    rows.append({"Question": "Which document?", "Best Answer": "None."})
    (run.data / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {"missing_group": 1}
    sides: dict[int, set[str]] = {}
    for record in run.records():
        sides.setdefault((record["row"] - 1) % 12, set()).add(record["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert {side for each in sides.values() for side in each} == {"train", "test"}
