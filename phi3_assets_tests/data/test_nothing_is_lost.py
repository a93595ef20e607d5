"""Generated files of each format: every row is kept or quarantined, and no text is in the corpus that is in no file."""

import csv
import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phi3_assets.data.judge import part_store, parts
from phi3_assets_tests.data.running import Run, write_model, write_sample

quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
# What breaks parsers: delimiters, quotes, backslashes, brackets, words that parsers take for values; other scripts.
PIECES = [*"abz AZ09.,;|'\"\\/[]{}:-é中Ж?", "NaN", "null", "nan", "\\u", "sep="]
text = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
pair = st.tuples(text, text)
pairs = st.lists(pair, min_size=1, max_size=8)

Pairs = list[tuple[str, str]]


def objects(rows: Pairs) -> list[dict[str, str]]:
    return [{"Question": question, "Best Answer": answer} for question, answer in rows]


def end_to_end(groups: list[Pairs]) -> Pairs:
    return [row for rows in groups for row in rows]


def to_csv(rows: Pairs, encoding: str, delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL, delimiter=delimiter)
    writer.writerows([("Question", "Best Answer"), *rows])
    return out.getvalue().encode(encoding)


def to_parquet(rows: Pairs) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(objects(rows)), sink)
    return sink.getvalue().to_pybytes()


def to_arrow(rows: Pairs) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(objects(rows))
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def to_xlsx(sheets: list[Pairs]) -> bytes:
    from openpyxl import Workbook

    book = Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets):
        sheet = book.create_sheet(f"S{number}")
        sheet.append(["Question", "Best Answer"])
        for row in rows:
            for place, value in enumerate(row, 1):
                cell = sheet.cell(row=sheet.max_row + (place == 1), column=place)
                cell.value, cell.data_type = value, "s"  # a text that begins with = is no formula
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def to_ods(sheets: list[Pairs]) -> bytes:
    """Spaces are elements of their own there, since XML may lose them."""

    def cell(text: str) -> str:
        kept = escape(text).replace(" ", "<text:s/>")
        return (
            f'<table:table-cell office:value-type="string"><text:p>{kept}</text:p></table:table-cell>'
            if text
            else EMPTY
        )

    tables = ""
    for number, rows in enumerate(sheets):
        lines = [("Question", "Best Answer"), *rows]
        inside = "".join(f"<table:table-row>{''.join(map(cell, line))}</table:table-row>" for line in lines)
        tables += f'<table:table table:name="S{number}">{inside}</table:table>'
    spaces = "".join(f' xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in NAMESPACES)
    body = f"<office:body><office:spreadsheet>{tables}</office:spreadsheet></office:body>"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        book.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        book.writestr("META-INF/manifest.xml", "<manifest/>")
        book.writestr(
            "content.xml", f'<?xml version="1.0"?><office:document-content{spaces}>{body}</office:document-content>'
        )
    return out.getvalue()


NAMESPACES = ("office", "table", "text")
EMPTY = "<table:table-cell/>"


def to_feather(rows: Pairs) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist(objects(rows))
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return sink.getvalue().to_pybytes()


WRITERS = {
    "wide.jsonl": lambda groups: "\n".join(
        json.dumps(row, ensure_ascii=False) for row in objects(end_to_end(groups))
    ).encode("utf-32-le"),
    "packed.ndjson.gz": lambda groups: b"".join(
        gzip.compress("".join(json.dumps(row) + "\n" for row in objects(rows)).encode()) for rows in groups
    ),
    "keyed.json": lambda groups: json.dumps(
        {f"r{i}": row for i, row in enumerate(objects(end_to_end(groups)))}
    ).encode(),
    "deep.json": lambda groups: json.dumps(
        {"a": {f"p{i}": {"rows": objects(rows)} for i, rows in enumerate(groups)}}
    ).encode(),
    "turns.jsonl": lambda groups: "\n".join(
        json.dumps({"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]})
        for q, a in end_to_end(groups)
    ).encode(),
    "wide.csv": lambda groups: to_csv(end_to_end(groups), "utf-16-be"),
    "a.feather": lambda groups: to_feather(end_to_end(groups)),
    "a.ods": to_ods,
    "lines.jsonl": lambda groups: "\n".join(json.dumps(row) for rows in groups for row in objects(rows)).encode(),
    "array.json": lambda groups: json.dumps([row for rows in groups for row in objects(rows)]).encode("utf-16"),
    "arrays.json": lambda groups: json.dumps({f"part {i}": objects(rows) for i, rows in enumerate(groups)}).encode(),
    "one_by_one.json": lambda groups: "\n".join(
        json.dumps(row, indent=1, ensure_ascii=False) for rows in groups for row in objects(rows)
    ).encode(),
    "named.jsonl": lambda groups: json.dumps([row for rows in groups for row in objects(rows)], indent=1).encode(),
    "comma.csv": lambda groups: to_csv(end_to_end(groups), "utf-8-sig"),
    "semicolon.csv": lambda groups: to_csv(end_to_end(groups), "utf-16", ";"),
    "tab.tsv": lambda groups: to_csv(end_to_end(groups), "utf-8", "\t"),
    "said.csv": lambda groups: b"sep=|\r\n" + to_csv(end_to_end(groups), "utf-8", "|"),
    "gb.csv": lambda groups: to_csv(end_to_end(groups), "gb18030"),
    "a.parquet": lambda groups: to_parquet(end_to_end(groups)),
    "a.arrow": lambda groups: to_arrow(end_to_end(groups)),
    "a.xlsx": to_xlsx,
}


@quick
@given(drawn=st.lists(pairs, min_size=1, max_size=3))
def test_rows_read_are_the_rows_written(drawn: list[Pairs]) -> None:
    """The same rows in a file of each format: what one reads as the others do is a duplicate, all else is kept."""
    # The shape of a file is that of its rows, so each array or sheet has one that is whole.
    groups = [[(f"First of {i}?", f"Yes {i}."), *rows] for i, rows in enumerate(drawn)]
    rows = end_to_end(groups)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), dataset_encoding="gb18030")
        write_sample(run.data, 60)
        (run.data / "again").mkdir()
        (run.data / "folder").symlink_to("again")
        for name, write in WRITERS.items():
            (run.data / name).write_bytes(write(groups))
            (run.data / "again" / name).symlink_to(f"../{name}")
        metrics = run.ingest()
        records, quarantine = run.records(), run.quarantine()
    entries = {entry["file"]: entry for entry in metrics["files"] if entry["file"] != "sample.jsonl"}
    assert entries.keys() == WRITERS.keys(), "a link is no second file"
    written = {(question.strip(), answer.strip()) for question, answer in rows}
    for name, entry in entries.items():
        kept = [record for record in records if record["file"] == name]
        quarantined = [row for row in quarantine if row["file"] == name]
        blank = sum(name.endswith((".xlsx", ".ods")) and not question and not answer for question, answer in rows)
        assert entry["rows"] == len(rows) - blank == len(kept) + len(quarantined), name
        learnt = {tuple(turn["content"] for turn in record["messages"]) for record in kept}
        assert learnt <= written, name
        assert {row["reason"] for row in quarantined} <= {"empty_text", "duplicate", "near_duplicate_of_test"}, name


def test_blocks_and_batches_go_by_bytes_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in rows alone, 195 MB of answers of 50 KB took 6.3 GB."""
    made = []
    for name, batch_chars, block_bytes in (("one", 1 << 22, 1 << 25), ("many", 700, 3_000)):
        monkeypatch.setattr(parts, "_BATCH_CHARS", batch_chars)
        monkeypatch.setattr(part_store, "BLOCK_BYTES", block_bytes)
        run = Run(tmp_path / name)
        write_sample(run.data, 200)
        extra = [("Where is it kept, in which room of this old building?", f"In room {i % 2}.") for i in range(4)]
        (run.data / "more.jsonl").write_text("\n".join(map(json.dumps, objects(extra))))
        metrics = run.ingest()
        corpus = run.corpus(write_model(tmp_path / "model"))
        blocks = len(list((run.raw / "records.parquet").iterdir()))
        lists = [(run.raw / each).read_text() for each in ("conflicts.jsonl", "near_duplicates.jsonl")]
        made.append((blocks, metrics | {"files_read": 0}, run.records(), run.train(), lists, corpus["tokens"]))
    assert made[0][0] < 3 < 10 < made[1][0]
    assert made[0][1:] == made[1][1:]
