"""A part: all that is to be known of one file alone. It is made once per content of the file and kept in the cache.

A part holds blocks of records (as if every row were kept), a quarantine list, `facts.json`, and arrays with one value
per record that `merge` needs to judge rows of all files against each other without reading them again.
"""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from phi3_assets.data.judge.part_store import FileReport, PartSettings, PartStore, RowBatch
from phi3_assets.data.judge.policies import apply_policies
from phi3_assets.data.read.meaning import BadRow
from phi3_assets.data.read.readers import read_rows
from phi3_assets.data.read.rows import FileDamage, Row
from phi3_assets.data.read.shapes import Shape, detect_shape, rank
from phi3_assets.data.read.sources import SourceFile

_BATCH_ROWS = 4096
_BATCH_CHARS = 4 << 20
_MOST_MET = 20
# Tab, line feed and carriage return are text, and so is U+0085; the other control characters are damage, and so is
# U+FFFD, the mark of bytes that did not decode.
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{84}\x{86}-\x{9f}]"
_UNDECODABLE = r"\x{fffd}"

Refusal = tuple[int, str]
"""Row number and reason code."""


def make_part(file: SourceFile, settings: PartSettings, folder: Path) -> None:
    """Read a file and leave its part in `folder`. Depends on nothing but the file's name and content and `settings`."""
    reading = _Reading(file, settings)
    facts = reading.facts
    with PartStore(folder) as store, ThreadPoolExecutor(1) as finisher:
        # Much of the work on texts goes on outside Python's lock: it is done while the next rows are read.
        running: Future[list[Refusal]] | None = None
        for batch in reading.batches():
            if running:
                reading.refused += running.result()
            running = finisher.submit(_finish, batch, file.name, settings, reading, store)
        if running:
            reading.refused += running.result()
        facts.rows_kept = store.rows
    facts.quarantined.update(reason for _, reason in reading.refused)
    facts.unused = dict(sum((shape.unused.rows for shape in reading.shapes), Counter()))
    lines = (json.dumps({"row": row, "reason": reason}) + "\n" for row, reason in sorted(reading.refused))
    (folder / "quarantine.jsonl").write_text("".join(lines), encoding="utf-8")
    described = {
        **vars(facts),
        **vars(reading.file_facts),
        "sections": [list(section) for section in reading.file_facts.sections],
        "shape": reading.shapes[0].name if reading.shapes else None,
        "shape_reason": reading.shapes[0].reason if reading.shapes else None,
        "damage": [reading.damage.reason, reading.damage.detail] if reading.damage else None,
    }
    (folder / "facts.json").write_text(json.dumps(described, sort_keys=True), encoding="utf-8")


class _Reading:
    """One pass over a file: rows become messages, or are refused."""

    def __init__(self, file: SourceFile, settings: PartSettings) -> None:
        self.facts = FileReport()
        self._shapes = settings.shape_settings()
        said = replace(file, encoding=settings.dataset_encoding)
        self.file_facts, self._rows = read_rows(said, partial(rank, settings=self._shapes))
        self._settings = settings
        self.shape: Shape | None = None
        self.shapes: list[Shape] = []
        self._sections = 0
        self.damage: FileDamage | None = None
        self.refused: list[Refusal] = []

    def batches(self) -> Iterator[RowBatch]:
        """The rows that have messages, some thousand at a time."""
        batch = RowBatch()
        try:
            for row in self._rows:
                self.facts.rows_read += 1
                try:
                    self._take(row, batch)
                except BadRow as error:
                    self.refused.append((row.number, error.reason))
                    self._note(error)
                if len(batch.numbers) == _BATCH_ROWS or batch.chars >= _BATCH_CHARS:
                    yield batch
                    batch = RowBatch()
        except FileDamage as damage:
            self.damage = damage
        if batch.numbers:
            yield batch

    def _note(self, error: BadRow) -> None:
        """Count what a refused row held, for the message that says how to mend it."""
        if error.met:
            met = self.facts.met.setdefault(error.reason, {})
            if error.met in met or len(met) < _MOST_MET:
                met[error.met] = met.get(error.met, 0) + 1

    def _take(self, row: Row, batch: RowBatch) -> None:
        settings = self._settings
        if row.reason:
            raise BadRow(row.reason)
        if len(self.file_facts.sections) > self._sections:
            self._sections = len(self.file_facts.sections)
            self.shape = None  # another array or sheet may have other columns
        if self.shape is None:
            self.shape = detect_shape(row.value, self._shapes)
            self.shapes += [self.shape] if self.shape else []
            if self.shape is None:
                if not isinstance(row.value, dict):
                    raise BadRow("not_an_object")
                self.facts.columns = self.facts.columns or [str(name) for name in row.value]
                raise BadRow("unknown_shape")
        messages = self.shape.messages(row.value)
        group = _group_value(row.value, settings.group_column, self.shape.inside) if settings.group_column else ""
        batch.numbers.append(row.number)
        batch.turns.append(len(messages))
        for role, content in messages:
            batch.roles.append(role)
            batch.contents.append(content)
            batch.chars += len(content)
        batch.groups.append(group)


def _group_value(row: Any, column: str, inside: str) -> str:
    value = row.get(column) if isinstance(row, dict) else None
    if value is None and inside:
        value = row[inside].get(column)
    if value is None or isinstance(value, dict | list) or not str(value).strip():
        raise BadRow("missing_group")
    return str(value).strip()


def _finish(batch: RowBatch, file: str, settings: PartSettings, reading: _Reading, store: PartStore) -> list[Refusal]:
    """Judge the texts of a batch and store its records; returns those that are refused."""
    turns = np.array(batch.turns)
    starts = np.concatenate([[0], np.cumsum(turns)[:-1]])
    bad: dict[int, str] = {}
    texts = _as_array(batch.contents)
    for reason, pattern in (("control_characters", _CONTROL), ("undecodable", _UNDECODABLE)):
        found = pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.logical_or.reduceat(found, starts)).tolist():
            bad.setdefault(place, reason)
    judged = apply_policies(texts, turns, settings, ignored=set(bad))
    reading.facts.count(judged)
    texts, plain = judged.texts, judged.plain
    bad |= judged.bad
    refused = [(batch.numbers[i], bad[i]) for i in sorted(bad)]
    keep = np.ones(len(turns), bool)
    keep[list(bad)] = False
    if not keep.all():
        wanted = np.repeat(keep, turns)
        texts, plain = texts.filter(pa.array(wanted)), plain.filter(pa.array(wanted))
        batch.roles = [role for role, ok in zip(batch.roles, wanted, strict=True) if ok]
        batch.numbers = [number for number, ok in zip(batch.numbers, keep, strict=True) if ok]
        batch.groups = [group for group, ok in zip(batch.groups, keep, strict=True) if ok]
        turns = turns[keep]
    if len(turns):
        store.add(file, batch, turns, texts, plain, settings, reading.facts, tuple(reading.file_facts.sections))
    return refused


def _as_array(contents: list[str]) -> pa.Array:
    """Lone surrogates have no UTF-8; as U+FFFD they are found like other damage."""
    try:
        return pa.array(contents, pa.string())
    except UnicodeEncodeError:
        contents[:] = [content.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for content in contents]
        return pa.array(contents, pa.string())
