"""raw_dataset on folders as people have them: every file is read or named, every row kept or quarantined."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets_tests.data.running import Run, bytes_of, write_sample


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_every_file_of_a_mixed_folder_is_read_or_named(run: Run) -> None:
    """Nothing of a folder may vanish: each of these files was silently skipped or half read by some loader."""
    data = run.data
    (data / "utf16.csv").write_text('Question,Best Answer\nÜber "alles"?,Ja €\nZwei?,"a\nb, c"\n', encoding="utf-16")
    (data / "semicolons.csv").write_text("Question;Best Answer\nSemi?;kolon, ja\n", encoding="utf-8-sig")
    (data / "cp1252.tsv").write_bytes("Question\tBest Answer\nCaf\xe9?\tna\xefve \x80\n".encode("latin-1"))
    nested = {"meta": {"n": 2}, "data": {"rows": [{"Question": "Nested one?", "Best Answer": 1.5}, {"Question": "x"}]}}
    (data / "nested.json").write_text(json.dumps(nested))
    with gzip.open(data / "lines.jsonl.gz", "wt") as out:
        out.write('{"Question": "Zipped?", "Best Answer": "Yes."}\nnot json\n')
    pq.write_table(pa.table({"Question": ["Parquet?"], "Best Answer": ["Read."]}), data / "good.parquet")
    (data / "truncated.parquet").write_bytes((data / "good.parquet").read_bytes()[:-20])
    (data / "text.json").write_text("Dear all,\nthis is no JSON.\n")
    (data / "broken.csv.gz").write_bytes((data / "lines.jsonl.gz").read_bytes()[:-12])
    (data / "notes.docx").write_bytes(b"PK")
    (data / "sub").mkdir()
    (data / "sub" / "deep.csv").write_text("question , BEST ANSWER\nDeep?,Down.\n")
    write_sample(data)
    metrics = run.ingest()

    files = {entry["file"]: entry for entry in metrics["files"]}
    assert {name: entry["readable_rows"] for name, entry in files.items() if name != "sample.jsonl"} == {
        "utf16.csv": 2,
        "semicolons.csv": 1,
        "cp1252.tsv": 1,
        "nested.json": 1,
        "lines.jsonl.gz": 1,
        "good.parquet": 1,
        "truncated.parquet": 0,
        "text.json": 0,
        "broken.csv.gz": 0,
        "sub/deep.csv": 1,
    }
    assert files["utf16.csv"]["encoding"] == "utf-16"
    assert files["cp1252.tsv"]["encoding"] == "cp1252"
    assert files["semicolons.csv"]["delimiter"] == ";"
    assert files["lines.jsonl.gz"]["compression"] == "gzip"
    assert sorted(metrics["files_damaged"]) == ["broken.csv.gz", "text.json", "truncated.parquet"]
    assert metrics["files_not_read"] == ["notes.docx"]
    assert metrics["quarantined_by_reason"] == {"invalid_json": 1, "missing_column": 1}
    answers = {(r["file"], r["row"]): r["messages"][-1]["content"] for r in run.records()}
    assert answers["utf16.csv", 1] == "Ja €"
    assert answers["utf16.csv", 2] == "a\nb, c"
    assert answers["cp1252.tsv", 1] == "naïve €"
    assert answers["nested.json", 1] == "1.5"
    named = {entry["file"] for entry in run.quarantine()}
    assert named >= {"truncated.parquet", "text.json", "broken.csv.gz", "nested.json", "lines.jsonl.gz"}


SHAPES = {
    "alpaca": {"instruction": "Name it", "input": "the error", "output": "EIO"},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi there"}, {"from": "gpt", "value": "Hello"}]},
    "messages": {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "1"},
            {"role": "user", "content": "Two?"},
            {"role": "assistant", "content": "2"},
        ]
    },
    "prompt-completion": {"prompt": "Finish", "completion": "done"},
    "text": {"text": "A passage of a manual."},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_is_detected_and_said(run: Run, shape: str) -> None:
    write_sample(run.data)
    (run.data / "other.jsonl").write_text(json.dumps(SHAPES[shape]) + "\n")
    metrics = run.ingest()
    entry = next(entry for entry in metrics["files"] if entry["file"] == "other.jsonl")
    assert entry["shape"] == shape
    assert "has the column" in entry["shape_reason"]
    messages = next(record["messages"] for record in run.records() if record["file"] == "other.jsonl")
    wanted = {
        "alpaca": ["Name it\n\nthe error", "EIO"],
        "sharegpt": ["Hi there", "Hello"],
        "messages": ["Be short.", "One?", "1", "Two?", "2"],
        "prompt-completion": ["Finish", "done"],
        "text": ["A passage of a manual."],
    }
    assert [turn["content"] for turn in messages] == wanted[shape]


def test_shape_can_be_fixed(tmp_path: Path) -> None:
    """A file with the columns of two shapes is read as the recipe says."""
    run = Run(tmp_path, dataset_shape="alpaca", test_share=0.5)
    rows = [{"prompt": f"p{i}", "completion": "c", "instruction": f"Do {i}", "output": "o"} for i in range(20)]
    (run.data / "two.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics = run.ingest()
    assert metrics["files"][0]["shape"] == "alpaca"
    assert {record["messages"][0]["content"][:3] for record in run.records()} == {"Do "}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        ([{"role": "assistant", "content": "a"}], "wrong_turn_order"),
        ([{"role": "user", "content": "q"}, {"role": "user", "content": "q"}], "wrong_turn_order"),
        ([{"role": "user", "content": "q"}, {"role": "boss", "content": "a"}], "unknown_role"),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": " "}], "empty_text"),
        ([{"role": "user", "content": [7]}, {"role": "assistant", "content": "a"}], "not_text"),
        (["user: q"], "not_an_object"),
        ([], "wrong_turn_order"),
    ],
)
def test_bad_conversations_are_quarantined_with_their_reason(run: Run, turns: list[object], reason: str) -> None:
    write_sample(run.data)
    good = [{"role": "user", "content": "Good?"}, {"role": "assistant", "content": "Yes."}]
    (run.data / "chats.jsonl").write_text("\n".join(json.dumps({"messages": each}) for each in (good, turns)))
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {reason: 1}
    assert run.quarantine() == [{"file": "chats.jsonl", "row": 2, "reason": reason}]


def test_rows_of_a_damaged_csv_line_cost_only_that_line(run: Run) -> None:
    """An unclosed quote makes other readers take the rest of the file as one field."""
    write_sample(run.data)
    lines = ["Question,Best Answer", '"Open,quote', "Two?,2", "Three?,3,3", "Four?", '"Five ""5""?",5']
    (run.data / "bad.csv").write_text("\n".join(lines) + "\n")
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {"bad_quotes": 1, "too_few_fields": 1, "too_many_fields": 1}
    kept = [record["messages"][0]["content"] for record in run.records() if record["file"] == "bad.csv"]
    assert kept == ["Two?", 'Five "5"?']


def test_datasets_saved_by_hugging_face_are_read(run: Run) -> None:
    import datasets

    rows = {"Question": ["Saved?", "Again?"], "Best Answer": ["To disk.", "Yes."]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows)}).save_to_disk(run.data / "hub")
    write_sample(run.data)
    metrics = run.ingest()
    assert {entry["file"]: entry["readable_rows"] for entry in metrics["files"] if "hub" in entry["file"]} == {
        "hub/train/data-00000-of-00001.arrow": 2
    }
    assert metrics["files_not_read"] == []


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (None, "does not exist"),
        ({}, "It is empty"),
        ({"a.csv": ""}, "a.csv is empty"),
        ({"a.csv": "Question,Best Answer\n"}, "a.csv is empty"),
        ({"a.csv": "Questoin,Answer\nq,a\n"}, "Did you mean 'Questoin'?"),
        ({"a.json": "no"}, "a.json: invalid_json"),
        ({"a.pdf": "x"}, "It holds only: a.pdf"),
        ({"a.csv": "Question,Best Answer\n" + "".join(f"q{i},a\n" for i in (1, 2))}, "test_share"),
    ],
)
def test_useless_folders_are_refused_with_the_way_out(run: Run, files: dict[str, str] | None, said: str) -> None:
    if files is None:
        run.data.rmdir()
    for name, text in (files or {}).items():
        (run.data / name).write_text(text)
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        run.ingest()


def test_equal_data_gives_equal_bytes_with_and_without_cache(tmp_path: Path) -> None:
    outputs = []
    for name in ("one", "two"):
        run = Run(tmp_path / name)
        write_sample(run.data)
        run.ingest()
        outputs.append(bytes_of(run.raw))
        metrics = run.ingest()
        assert (metrics["files_read"], metrics["files_reused"]) == (0, 1)
        outputs.append(bytes_of(run.raw))
    assert all(output == outputs[0] for output in outputs)
    assert not any(str(tmp_path).encode() in content for content in outputs[0].values())


def test_users_text_is_in_no_list_and_no_log(run: Run) -> None:
    write_sample(run.data)
    canary = "zebra-canary"
    lines = [f"{canary} {i}\x07?,{canary}" for i in range(3)] + [f'"{canary}', f"{canary},{canary},{canary}"]
    (run.data / "bad.csv").write_text("Question,Best Answer\n" + "\n".join(lines) + "\n")
    (run.data / "cut.json").write_text(f'[{{"Question": "{canary}", "Best Answer": "a"}}, {{"{canary}')
    run.ingest()
    lists = [path.read_text() for path in run.raw.glob("*.jsonl")]
    assert len(run.quarantine()) == 6
    assert not any(canary in text for text in [*lists, *run.log])


def test_columns_of_any_name(tmp_path: Path) -> None:
    run = Run(tmp_path, question_column="Ticket Text", answer_column="Fix")
    lines = "".join(f"{i},Ticket {i}?,Fix {i}\n" for i in range(40))
    (run.data / "t.csv").write_text("No,Ticket Text,Fix\n" + lines)
    metrics = run.ingest()
    assert metrics["files"][0]["shape_reason"] == "has the columns 'Ticket Text' and 'Fix'"
    assert metrics["rows_kept"] == 40


def test_share_and_threshold_do_what_they_say(tmp_path: Path) -> None:
    text = "Please restart the mail server in the cellar of the building {} before noon on Monday"
    shares = {}
    for share, threshold, near in ((0.1, 0.85, 1), (0.5, 0.99, 0)):
        run = Run(tmp_path / str(share), test_share=share, near_duplicate_threshold=threshold)
        write_sample(run.data, 500)
        rows = [{"Question": text.format(name), "Best Answer": "It works."} for name in ("seven", "sevem")]
        (run.data / "near.jsonl").write_text("\n".join(map(json.dumps, rows)))
        metrics = run.ingest()
        assert metrics["near_duplicate_rows"] + metrics["leaked_rows_removed"] == near
        shares[share] = metrics["test_rows"] / metrics["rows_kept"]
    assert 0.05 < shares[0.1] < 0.15
    assert 0.45 < shares[0.5] < 0.55


def test_a_single_test_row_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """One test item ended in a traceback of the statistics, hours later."""
    run = Run(tmp_path)
    write_sample(run.data, 90)
    run.ingest()
    rows = [record["messages"] for record in run.records() if record["split"] == "train"][:20]
    rows.append(next(record["messages"] for record in run.records() if record["split"] == "test"))
    lines = [
        json.dumps({"Question": question["content"], "Best Answer": answer["content"]}) for question, answer in rows
    ]
    (run.data / "sample.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"Only one of the 21 usable rows .* is a test row.*raise test_share"):
        run.ingest()
