"""Frozen rows under the present settings: what was frozen must be known again, and comply, whatever changed since.

After a freeze somebody set `group_column`, and 28 of 30 customers of the test set were trained on; or redaction, and 48
of 51 test rows were, in redacted form: ids and groups had been kept as they were hashed then. So ids and groups are
derived anew where the settings differ, and the policies hold for test rows as for all others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phi3_assets.core.errors import UserError
from phi3_assets.data.fingerprints import Hashes, among, digests
from phi3_assets.data.judge.keys import asked_questions, flat, identifying_texts, opening_questions
from phi3_assets.data.judge.part_store import PartSettings, asked_hashes
from phi3_assets.data.judge.policies import Judged, apply_policies
from phi3_assets.data.records import conversations, messages_column
from phi3_assets.data.testset.frozen import NOT_KNOWN, SETTINGS, TEST_SCHEMA, FrozenFile, prefix_hashes


@dataclass
class FrozenRows:
    """Every record that ever was a test, those of the present test set first.

    Attributes:
        files: Their files, the present one first.
        ids: Beginnings of their ids, of the present test set as its rows read now.
        groups: Beginnings of their groups under the present group_column; 0: not known.
        asked: Hash of the question of each; 0: it has none.
        present_rows: Records of the present test set that are tested with; the first of all.
        changed: The present test set, if it reads otherwise under the present settings.
        withheld: Rows of it that a policy takes out, by reason; they are among the records still, further behind.
        gone: What those asked of which the texts were erased.
    """

    files: list[FrozenFile]
    ids: Hashes
    groups: Hashes
    asked: Hashes
    present_rows: int = 0
    changed: pa.Table | None = None
    withheld: Counter[str] = field(default_factory=Counter)
    gone: Hashes = field(default_factory=lambda: np.zeros(0, np.uint64))
    _sources: list[tuple[FrozenFile, NDArray[np.int64]]] = field(default_factory=list)

    @property
    def has_present(self) -> bool:
        """Whether there is something to test with."""
        return bool(self.files) and self.files[0].present

    def present_table(self) -> pa.Table:
        """The records that are tested with."""
        if self.changed is not None:
            return self.changed
        return _complete(self.files[0].read()) if self.has_present else TEST_SCHEMA.empty_table()

    def questions(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str], list[str]]:
        """Of some records those whose texts are kept: their places, normalised questions and answers."""
        found: list[int] = []
        rows = []
        start = 0
        for file, order in self._sources:
            inside = places[(places >= start) & (places < start + len(order))] - start
            if len(inside):
                table = file.read(["messages"]).take(pa.array(order[inside])).combine_chunks()
                taken = [row for batch in table.to_batches() for row in conversations(batch)]
                found += [start + int(place) for place, row in zip(inside, taken, strict=True) if row]
                rows += [row for row in taken if row]
            start += len(order)
        roles, contents, turns = flat(rows)
        plain = apply_policies(pa.array(contents, pa.string()), turns, None).plain
        asked = asked_questions(np.array(roles, np.str_), plain, turns) if rows else pa.array([], pa.string())
        return np.array(found, np.int64), asked.to_pylist(), [row[-1][1] for row in rows]

    def refuse_unknown_groups(self, asked: Hashes, settings: PartSettings) -> None:
        """Groups of frozen rows are those of the same rows in the data; where they are not there, nobody can tell.

        Raises:
            UserError: A row of the present test set is not in the data, and its group under group_column is not known.
        """
        lost = self.groups[: self.present_rows] == 0
        if lost.any():
            lost[lost] = ~among(self.asked[: self.present_rows][lost], asked)
        if lost.any():
            raise UserError(
                f"{int(lost.sum())} of {self.present_rows} rows of the frozen test set are not in the data, so their "
                f"{settings.group_column!r} (group_column, which was another one when they were frozen) is not known, "
                "and rows of the same group might be trained on. Bring these rows back with that column filled, set "
                'group_column as it was, or run `phi3 testset retire --reason "..."`.'
            )


def frozen_rows(files: Sequence[FrozenFile], settings: PartSettings) -> FrozenRows:
    """Read what was frozen, under the present settings.

    Raises:
        UserError: A row of the present test set holds what a policy of the recipe blocks.
    """
    none = np.zeros(0, np.uint64)
    result = FrozenRows(list(files), none, none, none)
    behind: list[tuple[FrozenFile, NDArray[np.int64], pa.Table]] = []
    ahead: list[tuple[FrozenFile, NDArray[np.int64], pa.Table]] = []
    for file in files:
        keys = file.keys
        every = np.arange(keys.num_rows)
        if not file.forgotten and file.settings == {name: getattr(settings, name) for name in SETTINGS}:
            (ahead if file.present else behind).append((file, every, keys))
            continue
        table, out = _under(file, settings, result)
        keys = table.select(["id", "group", "asked"])
        if not file.present:
            behind.append((file, every, keys))
            continue
        result.changed = table.filter(pa.array(~out))
        ahead.append((file, every[~out], keys.filter(pa.array(~out))))
        behind.append((file, every[out], keys.filter(pa.array(out))))
    result.present_rows = sum(keys.num_rows for _, _, keys in ahead)
    parts = [*ahead, *behind]
    empty = TEST_SCHEMA.empty_table().select(["id", "group", "asked"])
    keys = pa.concat_tables([*(keys for _, _, keys in parts), empty])
    result.ids, result.groups, result.asked = (prefix_hashes(keys[name]) for name in ("id", "group", "asked"))
    result._sources = [(file, order) for file, order, _ in parts]
    return result


def _under(file: FrozenFile, settings: PartSettings, result: FrozenRows) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The records of a file with ids, groups and texts under the present settings, and which of them are withheld."""
    table = with_asked(file.read())
    rows = [row for batch in table.to_batches() for row in conversations(batch)]
    alive = np.flatnonzero([bool(row) for row in rows])
    roles, contents, turns = flat([rows[i] for i in alive])
    before = pa.array(contents, pa.string())
    judged = apply_policies(before, turns, settings if file.present else None)
    named = np.array(roles, np.str_)
    columns = {name: table[name].to_pylist() for name in ("id", "group")}
    if len(alive):
        ids = digests(identifying_texts(roles, judged.texts.to_pylist(), turns.tolist()))
        questions = opening_questions(named, judged.texts, turns)
        by_question = _hex(digests(questions.to_pylist()))
        once = _hex(digests(opening_questions(named, before, turns).to_pylist()))
        for i, row in enumerate(alive.tolist()):
            if file.present:
                columns["id"][row] = ids[i].hex()[:32]
            if not settings.group_column:
                columns["group"][row] = by_question[i]
            elif file.settings is None and columns["group"][row] == once[i]:
                columns["group"][row] = NOT_KNOWN  # it was grouped by its question
    if file.settings is not None and file.settings["group_column"] != settings.group_column:
        kept = set(alive.tolist()) if not settings.group_column else set()
        columns["group"] = [group if row in kept else NOT_KNOWN for row, group in enumerate(columns["group"])]
    dead = np.ones(table.num_rows, bool)
    dead[alive] = False
    result.gone = np.concatenate([result.gone, prefix_hashes(table["asked"].filter(pa.array(dead)))])
    out = np.zeros(table.num_rows, bool)
    if file.present:
        _refuse_blocked(judged, settings)
        out |= dead
        out[alive[list(judged.bad)]] = True
        result.withheld.update(judged.bad.values())
        messages = rows
        if judged.changed:
            texts = judged.texts.to_pylist()
            ends = np.cumsum(turns).tolist()
            for i, row in enumerate(alive.tolist()):
                span = slice(ends[i] - int(turns[i]), ends[i])
                messages[row] = list(zip(roles[span], texts[span], strict=True))
        role_list, content_list, counts = flat(messages)
        column = messages_column(role_list, pa.array(content_list, pa.string()), counts)
        table = table.set_column(table.schema.get_field_index("messages"), "messages", column)
    for name, values in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return table.cast(TEST_SCHEMA), out


def with_asked(records: pa.Table) -> pa.Table:
    """Records of a test set with the hash of what each asks, also where the file is from before it was kept."""
    table = _complete(records)
    hashes = table["asked"].to_pylist()
    rows = [row for batch in table.to_batches() for row in conversations(batch)]
    wanted = [i for i, row in enumerate(rows) if row and hashes[i] == NOT_KNOWN]
    if wanted:
        roles, contents, turns = flat([rows[i] for i in wanted])
        plain = apply_policies(pa.array(contents, pa.string()), turns, None).plain
        made = _hex_numbers(asked_hashes(asked_questions(np.array(roles), plain, turns)))
        for i, value in zip(wanted, made, strict=True):
            hashes[i] = value
    return table.set_column(table.schema.get_field_index("asked"), "asked", pa.array(hashes, pa.string()))


def _refuse_blocked(judged: Judged, settings: PartSettings) -> None:
    for policy, what, count in (
        ("secrets", "secrets", judged.rows_with_secrets),
        ("personal_data", "personal data", judged.rows_with_personal_data),
    ):
        if count and getattr(settings, policy) == "block":
            raise UserError(
                f"{count} rows of the frozen test set hold {what}, and the recipe says {policy}: block. Set {policy} "
                "to redact, quarantine or report, or run `phi3 testset forget` for these rows or `phi3 testset retire`."
            )


def _complete(table: pa.Table) -> pa.Table:
    """With the column `asked`, of a file from before there was one."""
    if "asked" not in table.schema.names:
        table = table.append_column("asked", pa.array([NOT_KNOWN] * table.num_rows, pa.string()))
    return table.replace_schema_metadata(None)


def _hex(values: Sequence[bytes]) -> list[str]:
    return [value.hex()[:32] for value in values]


def _hex_numbers(values: Hashes) -> list[str]:
    return [f"{value:016x}{0:016x}" for value in values.tolist()]
