"""The test set as items to score: prompt and answer, as messages and as the tokens that every variant is given.

Items are made some thousand at a time and kept by content: a test set that grows by a row was tokenised anew as a
whole, 150,000 rows of it.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data import spoken_role
from phi3_assets.data.records import conversations
from phi3_assets.data.tokens.formatting import Formatting, LaidOut, batches_of, lay_out
from phi3_assets.data.tokens.model_tokens import TokenRows, tokenise

_PROMPTS_CHECKED = 10_000
"""Whether prompts are tokenised alike alone is a matter of template and tokenizer; so many say it."""
_PART_ROWS = 2048
_PART_BYTES = 8 << 20
FACTS = ("rows", "rows_without_end_token", "prompts_checked", "prompts_tokenised_otherwise", "rows_quarantined")
"""What is counted of items, in `facts.json`."""


class TestPart(NamedTuple):
    """Some rows of a test set, one after the other.

    Attributes:
        content: They, in Arrow's stream format.
        prompts_checked: So many of their prompts are tokenised alone as well.
    """

    content: bytes
    prompts_checked: int

    @property
    def key(self) -> str:
        """What their items are kept by."""
        return f"tests-{hashlib.sha256(self.content).hexdigest()}-{self.prompts_checked}"


def test_parts(test_set: Path) -> Iterator[TestPart]:
    """A test set in parts, of which all but the last stay as they are when rows are appended."""
    first = 0
    with pq.ParquetFile(test_set) as content:
        groups = [content.metadata.row_group(number) for number in range(content.num_row_groups)]
        widest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0)
        rows = _PART_ROWS
        while rows > 1 and rows * widest > _PART_BYTES:
            rows //= 2  # by halves: a test set that grows by a few rows is cut as it was
        for batch in content.iter_batches(batch_size=rows):
            out = pa.BufferOutputStream()
            with pa.ipc.new_stream(out, batch.schema) as writer:
                writer.write_batch(batch)
            checked = min(batch.num_rows, max(0, _PROMPTS_CHECKED - first))
            yield TestPart(out.getvalue().to_pybytes(), checked)
            first += batch.num_rows


def make_test_items(part: TestPart, formatting: Formatting, folder: Path) -> None:
    """Leave `test.jsonl`, `quarantine.jsonl`, `facts.json` and `prompt.bin` in `folder`.

    A test longer than max_seq_len is left out, whatever `over_long` says: half an answer cannot be judged.
    """
    facts = dict.fromkeys(FACTS, 0)
    refused: list[dict[str, Any]] = []
    with (folder / "test.jsonl").open("wb") as items, (folder / "prompt.bin").open("wb") as prompts:
        for batch in batches_of(pa.ipc.open_stream(part.content).read_all()):
            laid_out = lay_out(batch, formatting, refused)
            tokens = tokenise(formatting.model, laid_out.rows, laid_out.skeletons)
            short = _short_enough(tokens, formatting, batch, laid_out, refused)
            _write(batch, laid_out, tokens, short, items, facts)
            _check_prompts(
                laid_out, tokens, short[: part.prompts_checked - facts["prompts_checked"]], formatting, facts
            )
            if len(short):
                tokens.prompt_hashes()[short, 1].tofile(prompts)
    lines = (json.dumps(entry, ensure_ascii=False) + "\n" for entry in refused)
    (folder / "quarantine.jsonl").write_text("".join(lines), encoding="utf-8")
    facts["rows_quarantined"] = len(refused)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")


def _short_enough(
    tokens: TokenRows, formatting: Formatting, batch: pa.RecordBatch, laid_out: LaidOut, refused: list[dict[str, Any]]
) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    limit = formatting.max_seq_len
    short = tokens.lengths <= limit if limit is not None else np.ones(len(tokens.lengths), bool)
    for i in np.flatnonzero(~short):
        place = laid_out.places[i]
        row = batch["file"][place].as_py(), batch["row"][place].as_py()
        refused.append({"file": row[0], "row": row[1], "reason": "test_too_long", "tokens": int(tokens.lengths[i])})
    return np.flatnonzero(short)


def _last_answers(tokens: TokenRows) -> tuple[list[int], list[int], list[bool]]:
    last = tokens.first_answers + tokens.turns - 1
    return tokens.starts[last].tolist(), tokens.ends[last].tolist(), tokens.ended[last].tolist()


def _write(
    batch: pa.RecordBatch, laid_out: LaidOut, tokens: TokenRows, short: Any, items: Any, facts: dict[str, int]
) -> None:
    starts, ends, ended = _last_answers(tokens)
    ids, groups, files = (batch[name].to_pylist() for name in ("id", "group", "file"))
    messages = list(conversations(batch))
    for i in short.tolist():
        place = laid_out.places[i]
        first = int(tokens.offsets[i])
        turns = messages[place]
        item = {
            "id": ids[place],
            "messages": [{"role": spoken_role(role), "content": content} for role, content in turns[:-1]],
            "question": next(content for role, content in reversed(turns) if role == "user"),
            "answer": turns[-1][1],
            "prompt_ids": tokens.ids[first : starts[i]].tolist(),
            "answer_ids": tokens.ids[starts[i] : ends[i]].tolist(),
            # For what is said of the answers: which items tell the same thing twice, and where they came from.
            "group": groups[place],
            "source": files[place],
        }
        items.write(orjson.dumps(item) + b"\n")
        facts["rows"] += 1
        facts["rows_without_end_token"] += not ended[i]


def _check_prompts(
    laid_out: LaidOut, tokens: TokenRows, short: Any, formatting: Formatting, facts: dict[str, int]
) -> None:
    """A prompt that is tokenised alone, as on the device, must give the tokens that it has before its answer."""
    starts, _, _ = _last_answers(tokens)
    texts = [laid_out.rows[i].text[: laid_out.rows[i].answers[-1][0]] for i in short.tolist()]
    facts["prompts_checked"] += len(texts)
    encodings = formatting.model.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for i, encoding in zip(short.tolist(), encodings, strict=True):
        facts["prompts_tokenised_otherwise"] += encoding.ids != tokens.ids[int(tokens.offsets[i]) : starts[i]].tolist()
