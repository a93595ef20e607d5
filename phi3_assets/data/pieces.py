"""A piece: the training rows of one block of records, tokenised. Made once per content and kept in the cache.

A piece holds `train.parquet`, `quarantine.jsonl`, `stats.json`, and for each of its rows the beginning of its id
(`id.bin`), a hash of its prompt (`prompt.bin`) and flags (`flags.bin`). Rows that some other piece holds already are
taken from there, so an edited file costs the tokenising of its new rows only.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from phi3_assets.data.cache import DirectoryCache
from phi3_assets.data.records import conversations
from phi3_assets.data.rendering import Rendered, Renderer, Skeleton, TemplateMismatch
from phi3_assets.data.shapes import Message
from phi3_assets.data.testset import prefix_hashes
from phi3_assets.data.tokens import IGNORED, ModelTokens, TokenRows, tokenise
from phi3_assets.errors import UserError

CORPUS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("length", pa.int32()),
    ]
)
_BATCH_ROWS = 4096
_ROW_GROUP = 16_384
ENDLESS, TRUNCATED = 1, 2


@dataclass(frozen=True)
class Formatting:
    """How records become tokens.

    Attributes:
        model: The base model's tokenizer.
        renderer: Its chat template, or the recipe's.
        system: Put before conversations that have no system message; empty: nothing is.
        supervise: "answers" or "all".
        over_long: "quarantine", "truncate" or "fail".
        max_seq_len: Longest row in tokens; None: any length.
    """

    model: ModelTokens
    renderer: Renderer
    system: str
    supervise: str
    over_long: str
    max_seq_len: int | None


@dataclass
class Stats:
    """What the checks want to know of tokenised rows; those of several pieces are added up."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    rows_without_end_token: int = 0
    rows_fully_masked: int = 0
    rows_with_two_begin_tokens: int = 0
    rows_truncated: int = 0
    rows_tokenised: int = 0  # the others were known
    quarantined: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)  # tokens to rows

    def add(self, other: "Stats") -> None:
        """Take in the numbers of other rows."""
        for name, value in vars(other).items():
            if isinstance(value, Counter):
                getattr(self, name).update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def dump(self) -> str:
        """As JSON."""
        return json.dumps(vars(self))

    @classmethod
    def load(cls, text: str) -> "Stats":
        """The inverse of `dump`."""
        values = json.loads(text)
        lengths = Counter({int(tokens): rows for tokens, rows in values.pop("lengths").items()})
        return cls(**values | {"quarantined": Counter(values["quarantined"]), "lengths": lengths})


@dataclass(frozen=True)
class CorpusRows:
    """Tokenised rows, and what the checks need of each beyond its tokens.

    Attributes:
        table: Rows of `CORPUS_SCHEMA`.
        prompts: A hash of each row's prompt.
        flags: `ENDLESS` if an answer has no end token behind it, `TRUNCATED` if the row was cut.
    """

    table: pa.Table
    prompts: NDArray[np.uint64]
    flags: NDArray[np.uint8]

    def take(self, rows: NDArray[np.int64]) -> "CorpusRows":
        """Some of the rows, in the order given."""
        return CorpusRows(self.table.take(pa.array(rows)), self.prompts[rows], self.flags[rows])

    def stats(self, begin_id: int | None) -> Stats:
        """Count what is in the rows themselves."""
        table = self.table.combine_chunks()
        lengths = table["length"].to_numpy()
        ids = pc.list_flatten(table["input_ids"]).to_numpy()
        learnt = pc.list_flatten(table["labels"]).to_numpy() != IGNORED
        starts = np.cumsum(lengths) - lengths
        per_row = np.add.reduceat(learnt, starts, dtype=np.int64) if len(starts) else np.zeros(0, np.int64)
        second = np.minimum(starts + 1, len(ids) - 1)
        return Stats(
            rows=len(lengths),
            tokens=len(ids),
            supervised_tokens=int(per_row.sum()),
            rows_without_end_token=int(((self.flags & ENDLESS) > 0).sum()),
            rows_fully_masked=int((per_row == 0).sum()),
            rows_with_two_begin_tokens=int(((ids[starts] == begin_id) & (ids[second] == begin_id)).sum()),
            rows_truncated=int(((self.flags & TRUNCATED) > 0).sum()),
            lengths=Counter(dict(zip(*map(np.ndarray.tolist, np.unique(lengths, return_counts=True)), strict=True))),
        )


def join_rows(parts: Sequence[CorpusRows]) -> CorpusRows:
    """Rows of several, one after the other."""
    return CorpusRows(
        pa.concat_tables([CORPUS_SCHEMA.empty_table(), *(part.table for part in parts)]),
        np.concatenate([np.zeros(0, np.uint64), *(part.prompts for part in parts)]),
        np.concatenate([np.zeros(0, np.uint8), *(part.flags for part in parts)]),
    )


class KnownRows:
    """Tokenised rows of all pieces in the cache, found by id; read when first asked."""

    def __init__(self, cache: DirectoryCache) -> None:
        self._cache = cache

    @cached_property
    def _pieces(self) -> list[Path]:
        folders = (self._cache.get(key, used=False) for key in self._cache)
        return [folder for folder in folders if folder and (folder / "id.bin").exists()]

    @cached_property
    def _index(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Sorted ids, the number of the row of each, and where each piece's numbers start."""
        ids = [np.fromfile(folder / "id.bin", np.uint64) for folder in self._pieces]
        joined = np.concatenate([*ids, np.zeros(0, np.uint64)])
        order = np.argsort(joined, kind="stable")
        return joined[order], order, np.cumsum([0, *map(len, ids)])

    def find(self, ids: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Number of each row, -1 where there is none."""
        known, numbers, _ = self._index
        if not len(known):
            return np.full(len(ids), -1)
        place = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[place] == ids, numbers[place], -1)

    def take(self, numbers: NDArray[np.int64]) -> CorpusRows:
        """The rows of these numbers, in this order."""
        starts = self._index[2]
        parts = np.searchsorted(starts, numbers, side="right") - 1
        taken: list[CorpusRows] = []
        places = [np.zeros(0, np.int64)]
        for part in np.unique(parts):
            where = np.flatnonzero(parts == part)
            taken.append(read_piece(self._pieces[part]).take(numbers[where] - starts[part]))
            places.append(where)
        return join_rows(taken).take(np.argsort(np.concatenate(places)))


def read_piece(folder: Path) -> CorpusRows:
    """The rows of a piece."""
    return CorpusRows(
        pq.read_table(folder / "train.parquet"),
        np.fromfile(folder / "prompt.bin", np.uint64),
        np.fromfile(folder / "flags.bin", np.uint8),
    )


def make_piece(block: Path, formatting: Formatting, known: KnownRows, folder: Path) -> None:
    """Tokenise the training rows of a block that are not known yet; leave the piece in `folder`.

    Raises:
        UserError: A row is too long and `over_long` is "fail", or the template refuses a conversation.
    """
    records = pq.read_table(block, filters=[("split", "=", "train")])
    numbers = known.find(prefix_hashes(records["id"]))
    new = np.flatnonzero(numbers < 0)
    fresh, kept, refused = format_records(records.take(pa.array(new)), formatting)
    old = np.flatnonzero(numbers >= 0)
    rows = join_rows([known.take(numbers[old]), fresh])
    rows = rows.take(np.argsort(np.concatenate([old, new[kept]]), kind="stable"))
    stats = rows.stats(formatting.model.begin_id)
    stats.rows_tokenised = len(new)
    stats.quarantined.update(entry["reason"] for entry in refused)
    with open_corpus(folder / "train.parquet") as train:
        train.write_table(rows.table, row_group_size=_ROW_GROUP)
    prefix_hashes(rows.table["id"]).tofile(folder / "id.bin")
    rows.prompts.tofile(folder / "prompt.bin")
    rows.flags.tofile(folder / "flags.bin")
    (folder / "quarantine.jsonl").write_text(
        "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in refused), encoding="utf-8"
    )
    (folder / "stats.json").write_text(stats.dump(), encoding="utf-8")


def open_corpus(path: Path) -> pq.ParquetWriter:
    """A writer of tokenised rows; equal rows give equal bytes."""
    lists = ["input_ids.list.element", "labels.list.element"]
    return pq.ParquetWriter(path, CORPUS_SCHEMA, compression="zstd", use_dictionary=lists, write_statistics=False)


def format_records(
    records: pa.Table, formatting: Formatting
) -> tuple[CorpusRows, NDArray[np.int64], list[dict[str, Any]]]:
    """Tokenise records.

    Returns:
        The rows, for each the number of its record, and the records left out: file, row, reason, tokens.
    """
    rows: list[CorpusRows] = []
    kept = [np.zeros(0, np.int64)]
    refused: list[dict[str, Any]] = []

    def finish(first: int, batch: pa.RecordBatch, laid_out: LaidOut, tokens: TokenRows) -> None:
        places, made = _corpus_rows(batch, laid_out, tokens, formatting, refused)
        rows.append(made)
        kept.append(first + places)

    # The tokenizer works outside Python's lock: while it encodes a batch, the next is laid out and the last stored.
    first = 0
    waiting: tuple[int, pa.RecordBatch, LaidOut, Future[TokenRows]] | None = None
    with ThreadPoolExecutor(1) as tokenizer:
        for batch in records.to_batches(max_chunksize=_BATCH_ROWS):
            laid_out = lay_out(batch, formatting, refused)
            running = tokenizer.submit(tokenise, formatting.model, laid_out.rows, laid_out.skeletons)
            if waiting:
                finish(waiting[0], waiting[1], waiting[2], waiting[3].result())
            waiting = (first, batch, laid_out, running)
            first += batch.num_rows
        if waiting:
            finish(waiting[0], waiting[1], waiting[2], waiting[3].result())
    refused.sort(key=lambda entry: (entry["file"], entry["row"]))
    return join_rows(rows), np.concatenate(kept), refused


@dataclass(frozen=True)
class LaidOut:
    """The records of a batch as text: `places[i]` is the record of `rows[i]` in the batch."""

    places: list[int]
    rows: list[Rendered]
    skeletons: list[Skeleton | None]
    roles: list[str]


def lay_out(batch: pa.RecordBatch, formatting: Formatting, refused: list[dict[str, Any]]) -> LaidOut:
    """Render the records of a batch; those that cannot be are added to `refused`."""
    laid_out = LaidOut([], [], [], [])
    barred = _with_control_tokens(batch, formatting.model)
    system: list[Message] = [("system", formatting.system)] if formatting.system else []
    for place, messages in enumerate(conversations(batch)):
        if barred[place]:
            refused.append(_refusal(batch, place, "control_token_in_text"))
            continue
        first_role = messages[0][0]
        if system and first_role == "user":
            messages = system + messages
        try:
            rendered = formatting.renderer.render(messages)
        except TemplateMismatch:
            refused.append(_refusal(batch, place, "does_not_fit_template"))
            continue
        laid_out.places.append(place)
        laid_out.rows.append(rendered)
        laid_out.skeletons.append(formatting.renderer.skeleton(tuple([role for role, _ in messages])))
        laid_out.roles.append(first_role)
    return laid_out


def _with_control_tokens(batch: pa.RecordBatch, model: ModelTokens) -> NDArray[np.bool_]:
    """Records whose text holds what the tokenizer would read as a control token: it would end a turn or begin one."""
    turns = batch.column("messages")
    pattern = "|".join(map(re.escape, model.special_texts))
    if not pattern or not batch.num_rows:
        return np.zeros(batch.num_rows, bool)
    found = pc.match_substring_regex(turns.flatten().field("content"), pattern).to_numpy(zero_copy_only=False)
    offsets = turns.offsets.to_numpy()
    return np.logical_or.reduceat(found, offsets[:-1] - offsets[0])


def _refusal(batch: pa.RecordBatch, place: int, reason: str, **numbers: int) -> dict[str, Any]:
    return {"file": batch["file"][place].as_py(), "row": batch["row"][place].as_py(), "reason": reason, **numbers}


def _corpus_rows(
    batch: pa.RecordBatch,
    laid_out: LaidOut,
    tokens: TokenRows,
    formatting: Formatting,
    refused: list[dict[str, Any]],
) -> tuple[NDArray[np.int64], CorpusRows]:
    """Labels, and what becomes of rows that are too long. Returns the records' places in the batch, and the rows."""
    lengths = tokens.lengths
    learnt = tokens.learnt()
    if formatting.supervise == "all":
        learnt[:] = True
    endless = np.zeros(len(lengths), bool)
    if len(lengths):
        endless = ~np.logical_and.reduceat(tokens.ended, tokens.first_answers)
    flags = np.where(endless, ENDLESS, 0).astype(np.uint8)
    keep = np.ones(len(lengths), bool)
    limit = formatting.max_seq_len
    for i in np.flatnonzero(lengths > limit) if limit is not None else ():
        place = laid_out.places[i]
        if formatting.over_long == "fail":
            where = _refusal(batch, place, "too_long")
            raise UserError(
                f"{where['file']}, row {where['row']} has {lengths[i]} tokens, more than max_seq_len ({limit}), and "
                "over_long is fail. Shorten it, raise max_seq_len, or set over_long to quarantine or truncate."
            )
        if formatting.over_long == "truncate" and learnt[tokens.offsets[i] : tokens.offsets[i] + limit].any():
            # The end token is cut off on purpose here, so it is not counted as missing.
            flags[i] = TRUNCATED
        else:
            keep[i] = False
            refused.append(_refusal(batch, place, "too_long", tokens=int(lengths[i])))
    in_reach = np.ones(len(tokens.ids), bool)
    if limit is not None and len(lengths) and lengths.max() > limit:
        in_reach = np.arange(len(tokens.ids)) - np.repeat(tokens.offsets[:-1], lengths) < limit
        in_reach &= np.repeat(keep, lengths)
        lengths = np.minimum(lengths, limit)[keep]
    ids = tokens.ids[in_reach]
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    places = np.array(laid_out.places, np.int64)[keep]
    columns = [
        batch["id"].take(pa.array(places)),
        pa.ListArray.from_arrays(offsets, pa.array(ids)),
        pa.ListArray.from_arrays(offsets, pa.array(np.where(learnt[in_reach], ids, IGNORED).astype(np.int32))),
        pa.array(lengths.astype(np.int32)),
    ]
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=CORPUS_SCHEMA)])
    prompts = tokens.prompt_hashes() if len(keep) else np.zeros(0, np.uint64)
    return places, CorpusRows(table, prompts[keep], flags[keep])
