"""From records to tokenised rows: layout, encoding, labels, and what becomes of rows that do not fit."""

import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phi3_assets.core.errors import UserError
from phi3_assets.data import Message
from phi3_assets.data.records import conversations
from phi3_assets.data.tokens.corpus_rows import ENDLESS, TOKENS_SCHEMA, TRUNCATED, CorpusRows, join_rows
from phi3_assets.data.tokens.model_tokens import IGNORED, ModelTokens, TokenRows, tokenise
from phi3_assets.data.tokens.rendering import Rendered, Renderer, Skeleton, TemplateMismatch

_BATCH_ROWS = 4096
_BATCH_BYTES = 2 << 20
"""About so much text is tokenised at a time: a tokenizer holds a hundred bytes for each token."""


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
        for batch in batches_of(records):
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


def batches_of(records: pa.Table) -> Iterator[pa.RecordBatch]:
    """The records some at a time, fewer of long ones."""
    rows = int(_BATCH_BYTES * max(records.num_rows, 1) / max(records.nbytes, 1))
    yield from records.to_batches(max_chunksize=max(1, min(_BATCH_ROWS, rows)))


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
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays(columns, schema=TOKENS_SCHEMA)])
    prompts = tokens.prompt_hashes() if len(keep) else np.zeros((0, 2), np.uint64)
    return places, CorpusRows(table, prompts[keep], flags[keep])
