"""Files as people have them: read whole, or refused in a sentence. Each of these was once something else, silently."""

import csv
import gzip
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.data.read.named_splits import TESTING, TRAINING, UNNAMED, VALIDATION, side_of
from phi3_assets.data.read.readers import read_rows
from phi3_assets.data.read.sources import list_files
from phi3_assets_tests.data.running import Run, write_model, write_sample


def pairs(count: int, start: int = 0) -> list[dict[str, str]]:
    return [
        {"Question": f"Which key opens locker {i}?", "Best Answer": f"Key {i}."} for i in range(start, start + count)
    ]


def write(run: Run, name: str, value: object) -> None:
    (run.data / name).write_text(value if isinstance(value, str) else json.dumps(value, indent=1), encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


ROWS = pairs(30)
LINE = [json.dumps(row) for row in ROWS]
TABLE = {
    "array of rows": ("a.json", ROWS),
    "arrays in an object": ("a.json", {"version": 1, "spring": ROWS[:20], "summer": {"rows": ROWS[20:]}}),
    "metadata before the rows": (
        "a.json",
        {"schema": {"fields": [{"name": "Question", "type": "string"}]}, "data": ROWS},
    ),
    "objects one after the other": ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
    "objects without a line between": ("a.json", "".join(json.dumps(row, indent=2) for row in ROWS)),
    "an array named .jsonl": ("a.jsonl", ROWS),
    "an array in one line named .jsonl": ("a.jsonl", json.dumps(ROWS)),
    "an array with a line for each": ("a.jsonl", "[\n" + ",\n".join(LINE) + ",\n]\n"),
    "commas behind lines": ("a.jsonl", ",\n".join(LINE)),
    "sep=; above the header": (
        "a.csv",
        "sep=;\r\nQuestion;Best Answer\r\n" + "".join(f"{r['Question']};{r['Best Answer']}\r\n" for r in ROWS),
    ),
    "a title above the header": (
        "a.csv",
        "FAQ of the lockers,\nof 3 March,\n\nQuestion,Best Answer\n"
        + "".join(f"{r['Question']},{r['Best Answer']}\n" for r in ROWS),
    ),
    "columns without a name": (
        "a.csv",
        "Question;Best Answer;;\n" + "".join(f"{r['Question']};{r['Best Answer']};;\n" for r in ROWS),
    ),
}


@pytest.mark.parametrize(("name", "content"), TABLE.values(), ids=TABLE)
def test_every_row_is_found(run: Run, name: str, content: object) -> None:
    write(run, name, content)
    metrics = run.ingest()
    assert (metrics["rows_read"], metrics["rows_kept"]) == (30, 30)
    assert {row["messages"][1]["content"] for row in run.records()} == {row["Best Answer"] for row in ROWS}


def test_arrays_that_hold_no_rows_are_named(run: Run) -> None:
    write(run, "a.json", {"authors": [{"name": "x", "mail": "y"}], "rows": ROWS})
    assert run.ingest()["files"][0]["left_out"] == {"authors": ["name", "mail"]}


def test_a_refused_row_of_an_array_is_found_again(run: Run) -> None:
    write(run, "a.json", {"first": ROWS, "second": [*pairs(3, 90), {"Question": "Why?"}]})
    run.ingest()
    assert run.quarantine() == [
        {"file": "a.json", "row": 34, "array": "second", "row_of_array": 4, "reason": "missing_column"}
    ]


def test_one_conversation_is_one_row(run: Run) -> None:
    turns = [{"from": "human", "value": "Which key?"}, {"from": "gpt", "value": "Key 7."}]
    write(run, "one.json", {"conversations": turns})
    write(run, "list.json", turns)
    write_sample(run.data)
    files = {file["file"]: file["readable_rows"] for file in run.ingest()["files"]}
    assert (files["one.json"], files["list.json"]) == (1, 1)


def test_a_split_that_is_named_is_honoured(tmp_path: Path) -> None:
    """16 of 56 rows were lost while the count balanced, and the test rows were trained on."""
    run = Run(tmp_path / "arrays")
    write(run, "a.json", {"train": pairs(24), "validation": pairs(6, 100), "test": [*pairs(8, 200), pairs(1)[0]]})
    metrics = run.ingest()
    sides = {row["messages"][0]["content"]: row["split"] for row in run.records()}
    assert metrics["named_splits"] == {"train": 24, "validation": 6, "test": 9}
    assert {row["Question"] for row in [*pairs(8, 200), *pairs(1)]} == {
        q for q, side in sides.items() if side == "test"
    }
    assert {row["Question"] for row in pairs(6, 100)} == {q for q, side in sides.items() if side == "held_out"}
    run.freeze()
    run.ingest()
    assert {row["messages"][0]["content"]: row["split"] for row in run.records()} == sides

    run = Run(tmp_path / "files")
    (run.data / "data").mkdir()
    write(run, "data/train-00000-of-00001.json", pairs(24))
    write(run, "data/validation-00000-of-00001.json", pairs(6, 100))
    assert run.ingest()["test_rows"] == 6
    ignoring = Run(tmp_path / "ignoring", split_names="ignore")
    ignoring.data = run.data
    assert ignoring.ingest()["named_splits"] == {}


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("train.jsonl", TRAINING),
        ("data/test-00000-of-00001-8b1d2fab.parquet", TESTING),
        ("desk_qa_val.csv.gz", VALIDATION),
        ("test set/part 1.csv", TESTING),
        ("Training.xlsx", TRAINING),
        ("training_manual.csv", UNNAMED),
        ("test_procedures.csv", UNNAMED),
        ("latest.json", UNNAMED),
        ("contest.json", UNNAMED),
    ],
)
def test_which_names_name_a_side(name: str, side: int) -> None:
    assert side_of(name) == side


def test_a_name_for_one_side_alone_says_nothing(run: Run) -> None:
    write(run, "test.json", pairs(60))
    metrics = run.ingest()
    assert metrics["named_splits"] == {}
    assert metrics["train_rows"] > metrics["test_rows"] > 1


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("ticket", [7, 1 << 62])
def test_nan_and_half_a_pair_end_in_one_way(run: Run, name: str, ticket: int) -> None:
    """Three parsers made three things of them, and "nan" was learnt as an answer."""
    rows = [json.dumps(row)[:-1] + ', "x": NaN}' for row in ROWS]
    rows += [
        '{"Question": "Which of NaN and -Infinity?", "Best Answer": NaN}',
        '{"Question": "Which one?", "Best Answer": -Infinity}',
        '{"Question": "Half \\ud83d?", "Best Answer": "a"}',
        '{"Question": "Other half \\uDE00?", "Best Answer": "a"}',
        '{"Question": "Whole \\ud83d\\ude00?", "Best Answer": "say \\\\ud83d, NaN, \\"NaN\\""}',
    ]
    rows = [f'{{"ticket": {ticket}, {row[1:]}' for row in rows]
    write(run, name, "[" + ",".join(rows) + "]" if name == "a.json" else "\n".join(rows))
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {"empty_text": 2, "undecodable": 2}
    whole = next(row for row in run.records() if row["row"] == 35)["messages"]
    assert [turn["content"] for turn in whole] == ["Whole \U0001f600?", 'say \\ud83d, NaN, "NaN"']
    assert set(metrics["files"][0]["unused"]) == {"ticket"}


def test_nan_is_found_wherever_a_piece_is_cut(run: Run) -> None:
    """Ijson reads pieces of 64 KB: a word, an escape or a string is cut at every place of some file."""
    for shift in range(40):
        pad = "n" * (65_480 + shift)
        text = f'[{{"pad": "{pad}", "Question": "q\\ud83d\\ude00", "Best Answer": NaN}}, {{"a": "NaN"}}]'
        write(run, "a.json", text)
        values = [row.value for row in read_rows(list_files(run.data)[0][0])[1]]
        assert [values[0]["Question"], values[0]["Best Answer"], values[1]] == ["q\U0001f600", None, {"a": "NaN"}]


def test_quotes_as_people_write_them(run: Run) -> None:
    free = [(f'"Open" in yard {i}: when?', f'At 6" past, "sharp" {i}') for i in range(12)]
    free += [(f'"Who asks {i}?', f"You {i}.") for i in range(12, 20)]
    write(run, "free.tsv", "Question\tBest Answer\n" + "".join(f"{q}\t{a}\n" for q, a in free))
    slashed = [(f'What is "B{i}", please?', f'It says "C:\\new{i}", then stops') for i in range(12)]
    lines = ['"{}","{}"\n'.format(*(text.replace('"', '\\"') for text in row)) for row in slashed]
    write(run, "slashed.csv", '"Question","Best Answer"\n' + "".join(lines))
    metrics = run.ingest()
    assert metrics["rows_quarantined"] == 0
    assert {(r["messages"][0]["content"], r["messages"][1]["content"]) for r in run.records()} == {*free, *slashed}
    assert [file["quotes"] for file in metrics["files"]] == ["none", "backslash"]


def test_one_odd_quote_does_not_change_what_the_others_mean(run: Run) -> None:
    lines = [f'"Which key, locker {i}?","Key ""{i}"""\n' for i in range(30)]
    write(run, "a.csv", "Question,Best Answer\n" + "".join(lines) + '"Open,quote\n')
    metrics = run.ingest()
    assert metrics["quarantined_by_reason"] == {"bad_quotes": 1}
    assert {row["messages"][1]["content"] for row in run.records()} == {f'Key "{i}"' for i in range(30)}


def book(path: Path, sheets: dict[str, list[list[object]]]) -> None:
    from openpyxl import Workbook

    workbook = Workbook()
    workbook.remove(workbook.active)
    for title, lines in sheets.items():
        sheet = workbook.create_sheet(title)
        for line in lines:
            sheet.append(line)
    workbook.save(path)


def test_every_sheet_of_a_spreadsheet_is_read(run: Run) -> None:
    import datetime

    lines = [[row["Question"], row["Best Answer"]] for row in pairs(30)]
    more = [
        ["When?", datetime.datetime(2026, 3, 4)],
        [None, None],
        ["How many?", 12],
        ["Which?", "#REF!"],
        ["Why?", None],
    ]
    book(
        run.data / "desk.xlsx",
        {
            "Lockers": [["FAQ"], [], ["Question", "Best Answer", "Owner"], *lines],
            "About": [["Owner", "Date"], ["Me", "today"]],
            "Doors": [["best answer", "QUESTION"], *([answer, question] for question, answer in more)],
        },
    )
    metrics = run.ingest()
    assert metrics["files"][0]["sections"] == ["Lockers", "Doors"]
    assert metrics["files"][0]["left_out"] == {"About": ["Owner", "Date"]}
    assert (metrics["rows_read"], metrics["rows_kept"]) == (34, 32)
    assert [(row["sheet"], row["row_of_sheet"], row["reason"]) for row in run.quarantine()] == [
        ("Doors", 5, "spreadsheet_error"),
        ("Doors", 6, "empty_text"),
    ]
    assert {"2026-03-04", "12"} <= {row["messages"][1]["content"] for row in run.records()}


@pytest.mark.parametrize("packed", [False, True])
def test_a_spreadsheet_that_is_none_is_named(run: Run, packed: bool) -> None:
    write_sample(run.data)
    book(run.data / "a.xlsx", {"S": [["Question", "Best Answer"], ["Why?", "Because."]]})
    whole = (run.data / "a.xlsx").read_bytes()
    (run.data / "cut.xlsx").write_bytes(whole[:-30])
    if packed:
        (run.data / "a.xlsx").unlink()
        (run.data / "a.xlsx.gz").write_bytes(gzip.compress(whole))
    metrics = run.ingest()
    assert metrics["files_damaged"] == ["cut.xlsx"]
    assert next(file for file in metrics["files"] if "a.xlsx" in file["file"])["readable_rows"] == 1


def test_notes_beside_the_data_do_not_count_as_defects(run: Run) -> None:
    write_sample(run.data)
    write(run, "shards.json", {"shards": [{"path": f"s-{i}", "bytes": i} for i in range(40)]})
    write(run, "stats.json", {"rows": 60})
    metrics = run.ingest()
    assert metrics["defective_share"] == 0
    assert metrics["files_not_read"] == ["shards.json", "stats.json"]


def test_what_is_not_understood_is_no_note_if_it_is_all_there_is(run: Run) -> None:
    write(run, "a.json", {"faq": [{"Frage": "Wo?", "Antwort": "Hier."}] * 9})
    with pytest.raises(UserError, match=r"a\.json has the columns 'Frage', 'Antwort'"):
        run.ingest()


def test_chats_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """They were one group, fell on one side, and the advice did not help."""
    run = Run(tmp_path)
    openings = ["Good morning!", "Hello there", "Hi", "ok, thanks"]
    chats = []
    for i in range(120):
        asked = [openings[i % 4], "Sure.", f"Which key opens locker {i // 2} in building {i % 2}?", f"Key {i}."]
        roles = ["user", "assistant"] * 2
        chats.append({"messages": [{"role": r, "content": c} for r, c in zip(roles, asked, strict=True)]})
    chats.append({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]})
    (run.data / "chats.jsonl").write_text("\n".join(map(json.dumps, chats)))
    metrics = run.ingest()
    assert 8 < metrics["test_rows"] < 40
    assert metrics["held_out_rows"] == 0
    assert run.corpus(write_model(tmp_path / "model"))["train_test_overlap"] == 0
    same = {}
    for row in run.records():
        same.setdefault(row["messages"][-2]["content"], set()).add(row["split"])
    assert all(len(sides) == 1 for sides in same.values())


def test_chats_on_one_side_name_the_column_that_helps(run: Run) -> None:
    rows = [
        {"Question": "What does the daily report of the plant say?", "Best Answer": f"{i} tons."} for i in range(40)
    ]
    write(run, "a.json", rows)
    with pytest.raises(UserError, match="group_column"):
        run.ingest()


DESK = Path(__file__).parent / "files" / "desk.xls"


def test_an_old_spreadsheet_is_read_like_a_new_one(run: Run) -> None:
    shutil.copyfile(DESK, run.data / "desk.xls")
    metrics = run.ingest()
    assert metrics["files"][0]["sections"] == ["Schränke", "Doors"]
    assert metrics["files"][0]["left_out"] == {"About": ["Owner", "Date"]}
    assert (metrics["rows_read"], metrics["rows_kept"]) == (18, 16)
    assert [(row["sheet"], row["row_of_sheet"], row["reason"]) for row in run.quarantine()] == [
        ("Doors", 6, "empty_text"),  # #REF!, which this format keeps as no text
        ("Doors", 7, "empty_text"),
    ]
    answers = {row["messages"][1]["content"] for row in run.records()}
    assert {"Key 11, at the “black” door.", "2026-03-04", "12", "2.5", "True"} <= answers


def test_a_damaged_old_spreadsheet_is_named_and_ends_no_process(run: Run) -> None:
    """Its reader panics where a sector lies beyond the end, which no `except Exception` sees."""
    write_sample(run.data)
    whole = DESK.read_bytes()
    (run.data / "page.xls").write_text("<html><table><tr><td>Question</td></tr></table></html>")
    (run.data / "noise.xls").write_bytes(whole[:600] + bytes(7000))
    for length in range(0, len(whole), 1024):
        (run.data / f"cut-{length}.xls").write_bytes(whole[:length])
    metrics = run.ingest()
    broken = {file["file"]: file["problem"] for file in metrics["files"] if file["problem"]}
    whole_after_all = {file["file"] for file in metrics["files"] if file["readable_rows"]} - {"sample.jsonl"}
    assert "HTML" in broken["page.xls"]
    assert len(broken) > 8
    assert {file["rows"] for file in metrics["files"] if file["file"] in whole_after_all} <= {18}


ROW = '{"Question": "Which key?", "Best Answer": "Key 7."}\n'
NAMED_OTHERWISE = {
    "zip.csv": (b"PK\x03\x04" + bytes(40), "zip archive or a spreadsheet"),
    "table.json": (b"PAR1" + bytes(40), r"name it \.parquet"),
    "twice.csv.gz": (gzip.compress(gzip.compress(b"Question,Best Answer\n")), r"add \.gz"),
    "lines.csv": (ROW.encode() * 9, r"name it \.jsonl"),
    "cut.jsonl.gz": (gzip.compress(ROW.encode() * 9)[:-20], "gzip stream is damaged"),
    "twins.csv": (b"Question,Best Answer,Question\na,b,c\n", "two columns are named 'Question'"),
}


@pytest.mark.parametrize(
    ("name", "content", "told"), [(k, *v) for k, v in NAMED_OTHERWISE.items()], ids=NAMED_OTHERWISE
)
def test_what_is_not_what_its_name_says_is_refused_in_a_sentence(
    run: Run, name: str, content: bytes, told: str
) -> None:
    """A cut .jsonl.gz ended in a traceback, a zip named .csv in columns of noise."""
    (run.data / name).write_bytes(content)
    with pytest.raises(UserError, match=told):
        run.ingest()


def test_what_is_only_named_packed_is_read(run: Run) -> None:
    (run.data / "a.jsonl.gz").write_text("\n".join(LINE))
    assert run.ingest()["rows_kept"] == 30


def test_turns_as_a_table_keeps_them_are_read(run: Run) -> None:
    """What pandas writes of a list into a csv is Python, and what older writers of parquet keep of a text is bytes."""
    turns = [
        [{"role": "user", "content": r["Question"]}, {"role": "assistant", "content": r["Best Answer"]}] for r in ROWS
    ]
    with (run.data / "a.csv").open("w", newline="") as out:
        csv.writer(out).writerows([["messages"], *([str(each)] for each in turns[:15])])
    columns = {name: [row[name].encode() for row in ROWS[15:]] for name in ROWS[0]}
    pq.write_table(pa.table(columns), run.data / "b.parquet")
    assert (run.ingest()["rows_read"], len(run.records())) == (30, 30)
    assert {row["messages"][1]["content"] for row in run.records()} == {row["Best Answer"] for row in ROWS}
