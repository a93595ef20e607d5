"""Step raw_dataset: from a folder of files to canonical records, with every row accounted for.

Leaves `records.parquet` (parquet and not JSON lines: see `data.records`) and `quarantine.jsonl` with the file, row
number and reason code of every row that was not kept. Neither holds a time or an absolute path: equal input gives
equal bytes.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi3_assets.data.readers import FileDamageError, Row, read_rows
from phi3_assets.data.records import Record, RecordWriter, group_of, record_id, split_of, text_problem
from phi3_assets.data.shapes import BadRowError, Shape, detect_shape
from phi3_assets.data.sources import SourceFile, list_files
from phi3_assets.errors import UserError, nearest
from phi3_assets.step import StepContext

_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 120


@dataclass
class _Tally:
    """What happened to the rows so far."""

    kept: Counter[str] = field(default_factory=Counter)  # by split
    quarantined: Counter[str] = field(default_factory=Counter)  # by reason
    read: int = 0
    files: list[dict[str, Any]] = field(default_factory=list)
    preview: list[dict[str, Any]] = field(default_factory=list)
    columns_seen: list[str] = field(default_factory=list)


def ingest(ctx: StepContext) -> dict[str, Any]:
    """Read every file of the folder `datasets`; see the module for what is left in the output.

    Raises:
        UserError: No folder, no data file, no row that can be used, or no row on one side of the split.
    """
    folder = ctx.inputs["datasets"]
    files, others = list_files(folder)
    tally = _Tally()
    with RecordWriter(ctx.output / "records.parquet") as writer, _Quarantine(ctx.output / "quarantine.jsonl") as bad:
        for done, file in enumerate(files):
            _ingest_file(file, ctx, writer, bad, tally)
            ctx.progress(fraction=(done + 1) / len(files), rows_read=tally.read)
    kept = tally.kept.total()
    if tally.read != kept + tally.quarantined.total():
        raise AssertionError(f"{tally.read} rows read, {kept} kept, {tally.quarantined.total()} quarantined")
    _refuse_if_useless(tally, ctx, folder)
    for name in others:
        ctx.log(f"{name}: not read, its ending is none of a data file's")
    return {
        "rows_read": tally.read,
        "rows_kept": kept,
        "rows_quarantined": tally.quarantined.total(),
        "quarantined_by_reason": dict(sorted(tally.quarantined.items())),
        "train_rows": tally.kept["train"],
        "test_rows": tally.kept["test"],
        "files": tally.files,
        "files_not_read": others,
        "preview": tally.preview,
    }


class _Quarantine:
    """Writes one JSON line for each row that is not kept."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="\n")

    def add(self, file: str, row: int | None, reason: str) -> None:
        self._file.write(json.dumps({"file": file, "row": row, "reason": reason}, ensure_ascii=False) + "\n")

    def __enter__(self) -> "_Quarantine":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _ingest_file(file: SourceFile, ctx: StepContext, writer: RecordWriter, bad: _Quarantine, tally: _Tally) -> None:
    facts, rows = read_rows(file)
    shape: Shape | None = None
    read = kept = 0
    problem: FileDamageError | None = None
    seen: set[str] = set()

    def quarantine(row: Row, reason: str) -> None:
        tally.quarantined[reason] += 1
        bad.add(file.name, row.number, reason)

    for row in _until_damage(rows):
        if isinstance(row, FileDamageError):
            problem = row
            bad.add(file.name, None, row.reason)
            ctx.log(f"{file.name}: {row.detail}; {kept} rows before that are kept")
            break
        read += 1
        if row.reason:
            quarantine(row, row.reason)
            continue
        if shape is None:
            shape = detect_shape(row.value, ctx.params["question_column"], ctx.params["answer_column"])
            if shape is None:
                if isinstance(row.value, dict):
                    seen.update(str(name) for name in row.value)
                quarantine(row, "unknown_shape")
                continue
        try:
            messages = shape.convert(row.value)
        except BadRowError as error:
            quarantine(row, str(error))
            continue
        reason = text_problem(messages)
        if reason:
            quarantine(row, reason)
            continue
        group = group_of(messages)
        split = split_of(group, ctx.params["test_share"])
        writer.add(Record(record_id(messages), messages, file.name, row.number, group, split))
        tally.kept[split] += 1
        kept += 1
        if len(tally.preview) < _PREVIEW_ROWS:
            tally.preview.append(_preview(file.name, row.number, messages, split))
    tally.read += read
    tally.columns_seen += sorted(seen)
    tally.files.append(
        {
            "file": file.name,
            "format": facts.format,
            "compression": facts.compression,
            "encoding": facts.encoding,
            "delimiter": facts.delimiter,
            "rows": read,
            "kept": kept,
            "shape": shape.name if shape else None,
            "shape_reason": shape.reason if shape else None,
            "problem": f"{problem.reason}: {problem.detail}" if problem else None,
        }
    )


def _until_damage(rows: Iterator[Row]) -> Iterator[Row | FileDamageError]:
    try:
        yield from rows
    except FileDamageError as damage:
        yield damage


def _preview(file: str, row: int, messages: list[tuple[str, str]], split: str) -> dict[str, Any]:
    question = " / ".join(content for role, content in messages[:-1] if role == "user")
    return {
        "file": file,
        "row": row,
        "question": question[:_PREVIEW_CHARS],
        "answer": messages[-1][1][:_PREVIEW_CHARS],
        "split": split,
    }


def _refuse_if_useless(tally: _Tally, ctx: StepContext, folder: Path) -> None:
    wanted = [ctx.params["question_column"], ctx.params["answer_column"]]
    if not tally.kept.total():
        if tally.columns_seen:
            hint = "".join(nearest(name, tally.columns_seen) for name in wanted)
            columns = ", ".join(map(repr, tally.columns_seen[:8]))
            raise UserError(
                f"No usable row in {folder}: its files have the columns {columns}, "
                f"wanted are {wanted[0]!r} and {wanted[1]!r}.{hint} Rename the columns, or set question_column and "
                "answer_column in the recipe."
            )
        problems = [f"{entry['file']}: {entry['problem']}" for entry in tally.files if entry["problem"]]
        reasons = [f"{count} rows {reason}" for reason, count in tally.quarantined.most_common()]
        found = "; ".join((problems + reasons)[:8]) or "the files are empty"
        raise UserError(f"No usable row in {folder}: {found}. Mend the files or put others there.")
    for split in ("train", "test"):
        if not tally.kept[split]:
            raise UserError(
                f"None of the {tally.kept.total()} usable rows in {folder} is a {split} row (test_share "
                f"{ctx.params['test_share']}, chosen by a hash of the question). Add rows, or change test_share."
            )
