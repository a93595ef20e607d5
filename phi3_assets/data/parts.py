"""A part: all that is to be known of one file alone. It is made once per content of the file and kept in the cache.

A part holds blocks of records (as if every row were kept), a quarantine list, `facts.json`, and arrays with one value
per record that `merge` needs to judge rows of all files against each other without reading them again.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data.fingerprints import BANDS, as_hashes, digests, normalise, sketch
from phi3_assets.data.readers import FileDamage, Row, read_rows
from phi3_assets.data.records import BLOCK_ROWS, SCHEMA, block_path, messages_column, open_block
from phi3_assets.data.sensitive import find_personal, find_secrets, redact, suspects
from phi3_assets.data.shapes import BadRow, Shape, detect_shape
from phi3_assets.data.sources import SourceFile
from phi3_assets.data.split import hash_split

_BATCH_ROWS = 4096
_PREVIEW_ROWS = 5
_PREVIEW_CHARS = 120
# Tab, line feed and carriage return are text, and so is U+0085; the other control characters are damage, and so is
# U+FFFD, the mark of bytes that did not decode.
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{84}\x{86}-\x{9f}]"
_UNDECODABLE = r"\x{fffd}"
ARRAYS: dict[str, Any] = {
    "id": np.uint64,
    "group": np.uint64,
    "answer": np.uint64,
    "row": np.int64,
    "side": np.uint8,
    "sketch": np.uint8,
}
"""The arrays of a part beside its MinHash bands, and their types; side is a position in `records.SPLITS`."""
NO_ANSWER = 0
"""In the array `answer`, of a record that is not one question and one answer."""


@dataclass(frozen=True)
class PartSettings:
    """The recipe fields that a part depends on; see the recipe for what they mean."""

    question_column: str
    answer_column: str
    dataset_shape: str
    group_column: str
    test_share: float
    personal_data: str
    secrets: str


@dataclass
class _Facts:
    """What the report says of the file; grows while it is read."""

    rows_read: int = 0
    rows_kept: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    personal_data: Counter[str] = field(default_factory=Counter)  # findings by kind
    secrets: Counter[str] = field(default_factory=Counter)
    rows_with_personal_data: int = 0
    rows_with_secrets: int = 0
    columns: list[str] = field(default_factory=list)  # of a file without a known shape
    preview: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class _Batch:
    """Rows that have become messages, flat."""

    numbers: list[int] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)


def make_part(file: SourceFile, settings: PartSettings, folder: Path) -> None:
    """Read a file and leave its part in `folder`. Depends on nothing but the file's name and content and `settings`."""
    facts = _Facts()
    file_facts, rows = read_rows(file)
    shape: Shape | None = None
    damage: FileDamage | None = None
    with (folder / "quarantine.jsonl").open("w", encoding="utf-8", newline="\n") as quarantine, _Store(folder) as store:

        def refuse(number: int, reason: str) -> None:
            facts.quarantined[reason] += 1
            quarantine.write(json.dumps({"row": number, "reason": reason}) + "\n")

        batch = _Batch()
        for row in _until_damage(rows):
            if isinstance(row, FileDamage):
                damage = row
                break
            facts.rows_read += 1
            if row.reason:
                refuse(row.number, row.reason)
                continue
            if shape is None:
                shape = detect_shape(
                    row.value, settings.question_column, settings.answer_column, settings.dataset_shape
                )
                if shape is None:
                    if isinstance(row.value, dict) and not facts.columns:
                        facts.columns = [str(name) for name in row.value]
                    refuse(row.number, "unknown_shape" if isinstance(row.value, dict) else "not_an_object")
                    continue
            try:
                messages = shape.convert(row.value)
                group = _group_value(row.value, settings.group_column) if settings.group_column else ""
            except BadRow as error:
                refuse(row.number, str(error))
                continue
            batch.numbers.append(row.number)
            batch.turns.append(len(messages))
            for role, content in messages:
                batch.roles.append(role)
                batch.contents.append(content)
            batch.groups.append(group)
            if len(batch.numbers) == _BATCH_ROWS:
                _finish(batch, file.name, settings, facts, refuse, store)
                batch = _Batch()
        if batch.numbers:
            _finish(batch, file.name, settings, facts, refuse, store)
        facts.rows_kept = store.rows
    described = {
        **vars(facts),
        **vars(file_facts),
        "shape": shape.name if shape else None,
        "shape_reason": shape.reason if shape else None,
        "damage": [damage.reason, damage.detail] if damage else None,
    }
    (folder / "facts.json").write_text(json.dumps(described, sort_keys=True), encoding="utf-8")


def _until_damage(rows: Iterator[Row]) -> Iterator[Row | FileDamage]:
    try:
        yield from rows
    except FileDamage as damage:
        yield damage


def _group_value(row: Any, column: str) -> str:
    value = row.get(column)
    if value is None or isinstance(value, dict | list) or not str(value).strip():
        raise BadRow("missing_group")
    return str(value).strip()


def _finish(batch: _Batch, file: str, settings: PartSettings, facts: _Facts, refuse: Any, store: "_Store") -> None:
    """Judge the texts of a batch and store its records."""
    turns = np.array(batch.turns)
    starts = np.concatenate([[0], np.cumsum(turns)[:-1]])
    bad: dict[int, str] = {}
    texts = _as_array(batch.contents)
    for reason, pattern in (("control_characters", _CONTROL), ("undecodable", _UNDECODABLE)):
        found = pc.match_substring_regex(texts, pattern).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(np.logical_or.reduceat(found, starts)).tolist():
            bad.setdefault(place, reason)
    changed = _look_for_sensitive(batch.contents, texts, np.repeat(np.arange(len(turns)), turns), settings, facts, bad)
    if changed:
        texts = pa.array(batch.contents, pa.string())
    for i in sorted(bad):
        refuse(batch.numbers[i], bad[i])
    keep = np.ones(len(turns), bool)
    keep[list(bad)] = False
    if not keep.all():
        wanted = np.repeat(keep, turns)
        texts = texts.filter(pa.array(wanted))
        batch.roles = [role for role, ok in zip(batch.roles, wanted, strict=True) if ok]
        batch.numbers = [number for number, ok in zip(batch.numbers, keep, strict=True) if ok]
        batch.groups = [group for group, ok in zip(batch.groups, keep, strict=True) if ok]
        turns = turns[keep]
    if len(turns):
        store.add(file, batch, turns, texts, settings, facts)


def _as_array(contents: list[str]) -> pa.Array:
    """Lone surrogates (JSON can hold half of a pair) have no UTF-8; as U+FFFD they are found like other damage."""
    try:
        return pa.array(contents, pa.string())
    except UnicodeEncodeError:
        contents[:] = [content.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for content in contents]
        return pa.array(contents, pa.string())


def _look_for_sensitive(
    contents: list[str],
    texts: pa.Array,
    row_of: NDArray[np.int64],
    settings: PartSettings,
    facts: _Facts,
    bad: dict[int, str],
) -> bool:
    """Count personal data and secrets; redact them in `contents` or mark their rows as bad. True if texts changed."""
    changed = False
    with_personal, with_secrets = set(), set()
    for i in np.flatnonzero(suspects(texts)):
        row = int(row_of[i])
        if row in bad and bad[row] not in ("personal_data", "secret"):
            continue
        secrets = find_secrets(contents[i])
        personal = find_personal(contents[i])
        if secrets:
            facts.secrets.update(finding.kind for finding in secrets)
            with_secrets.add(row)
        if personal:
            facts.personal_data.update(finding.kind for finding in personal)
            with_personal.add(row)
        hidden = secrets * (settings.secrets == "redact") + personal * (settings.personal_data == "redact")
        if hidden:
            contents[i] = redact(contents[i], hidden)
            changed = True
    facts.rows_with_personal_data += len(with_personal)
    facts.rows_with_secrets += len(with_secrets)
    for rows, policy, reason in (
        (with_secrets, settings.secrets, "secret"),
        (with_personal, settings.personal_data, "personal_data"),
    ):
        if policy in ("quarantine", "block"):
            for row in rows:
                bad.setdefault(row, reason)
    return changed


class _Store:
    """Writes blocks and arrays as the batches come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._block: pq.ParquetWriter | None = None
        self._arrays: dict[str, IO[bytes]] = {}
        self.rows = 0

    def __enter__(self) -> "_Store":
        names = [*ARRAYS, *(f"band{i}" for i in range(BANDS))]
        self._arrays = {name: (self._folder / f"{name}.bin").open("wb") for name in names}
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._arrays.values():
            file.close()
        if self._block is not None:
            self._block.close()

    def add(
        self,
        file: str,
        batch: _Batch,
        turns: NDArray[np.int64],
        texts: pa.Array,
        settings: PartSettings,
        facts: _Facts,
    ) -> None:
        rows = len(turns)
        ends = np.cumsum(turns)
        first_roles = np.array(batch.roles)[ends - turns]
        firsts = normalise(texts.take(pa.array(ends - turns + (first_roles == "system"))))
        simple = (turns == 2) & (first_roles == "user")
        questions = firsts if simple.all() else _questions(texts, turns, ends)
        answers = normalise(texts.take(pa.array(ends - 1)))
        ids = digests(_identifying_texts(batch.roles, texts.to_pylist(), turns.tolist()))
        if settings.group_column:
            groups = digests(f"{settings.group_column}\x1f{value}" for value in batch.groups)
        else:
            groups = digests(firsts.to_pylist())
        group_hashes = as_hashes(groups)
        # A passage asks nothing, so nothing can be tested with it.
        split = np.where(first_roles == "text", "train", hash_split(group_hashes, settings.test_share))
        answer_hashes = as_hashes(digests(answers.to_pylist())) | np.uint64(1)
        sketches, bands = sketch(questions, answers)
        arrays: dict[str, NDArray[Any]] = {
            "id": as_hashes(ids),
            "group": group_hashes,
            "answer": np.where(simple, answer_hashes, NO_ANSWER).astype(np.uint64),
            "row": np.array(batch.numbers, np.int64),
            "side": (split == "test").astype(np.uint8),
            "sketch": sketches,
            **{f"band{i}": bands[i] for i in range(BANDS)},
        }
        for name, values in arrays.items():
            self._arrays[name].write(np.ascontiguousarray(values).tobytes())
        columns = [
            pa.array([digest.hex()[:32] for digest in ids]),
            messages_column(batch.roles, texts, turns),
            pa.array([file] * rows),
            pa.array(batch.numbers, pa.int64()),
            pa.array([digest.hex()[:32] for digest in groups]),
            pa.array(split.tolist()),
        ]
        table = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
        if len(facts.preview) < _PREVIEW_ROWS:
            _add_previews(table, facts.preview)
        self._write(table)

    def _write(self, table: pa.RecordBatch) -> None:
        if self._block is None or self.rows % BLOCK_ROWS == 0:
            if self._block is not None:
                self._block.close()
            self._block = open_block(block_path(self._folder, self.rows // BLOCK_ROWS))
        room = BLOCK_ROWS - self.rows % BLOCK_ROWS
        head = table.slice(0, room)
        self._block.write_batch(head)
        self.rows += head.num_rows
        if table.num_rows > room:
            self._write(table.slice(room))


def _questions(texts: pa.Array, turns: NDArray[np.int64], ends: NDArray[np.int64]) -> pa.Array:
    """All that comes before the last answer of each row, normalised."""
    contents = texts.to_pylist()
    joined = ["\n".join(contents[end - count : end - 1]) for count, end in zip(turns, ends, strict=True)]
    return normalise(pa.array(joined, pa.string()))


def _identifying_texts(roles: list[str], contents: list[str], turns: list[int]) -> Iterator[str]:
    """A text for each row that no other conversation has: no content holds the control characters between."""
    end = 0
    for count in turns:
        start, end = end, end + count
        yield "\x1e".join([f"{roles[i]}\x1f{contents[i]}" for i in range(start, end)])


def _add_previews(table: pa.RecordBatch, previews: list[dict[str, Any]]) -> None:
    """The first rows for the table in the UI, shortened."""
    for record in table.slice(0, _PREVIEW_ROWS - len(previews)).to_pylist():
        turns = record["messages"]
        question = " / ".join(turn["content"] for turn in turns[:-1] if turn["role"] == "user")
        previews.append(
            {
                "row": record["row"],
                "question": question[:_PREVIEW_CHARS],
                "answer": turns[-1]["content"][:_PREVIEW_CHARS],
                "split": record["split"],
            }
        )
