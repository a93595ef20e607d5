"""Step formatted_corpus: from canonical records to what is trained on and what is tested with.

Leaves `train.parquet` (id, input_ids, labels, length; a label is -100 where nothing is learnt), `test.jsonl` (id,
messages of the prompt, question, answer, prompt_ids, answer_ids; the two id lists together are the conversation up to
and with its last end token) and `quarantine.jsonl` (id, reason, length) of the records left out.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from phi3_assets.data.chat_template import ChatTemplate, Rendered, TemplateMismatch, load_chat_template
from phi3_assets.data.records import RECORDS, blocks, conversations
from phi3_assets.data.shapes import Message
from phi3_assets.data.tokens import IGNORED, ModelTokens, Tokenised, labels_of, load_model_tokens, tokenise
from phi3_assets.errors import UserError
from phi3_assets.step import StepContext

_BATCH_ROWS = 2048
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.int32())),
        ("length", pa.int32()),
    ]
)


def format_corpus(ctx: StepContext) -> dict[str, Any]:
    """Render, tokenise and mask every record; see the module for what is left in the output.

    Raises:
        UserError: The base model's tokenizer or template cannot be used, or no row is left on one side of the split.
    """
    model = load_model_tokens(ctx.inputs["base_model"])
    template = load_chat_template(ctx.inputs["base_model"])
    system: list[Message] = [("system", ctx.params["system_prompt"])] if ctx.params["system_prompt"] else []
    out = _Output(ctx.output, model, ctx.params["max_seq_len"])
    files = blocks(ctx.inputs["raw_dataset"] / RECORDS)
    with out:
        for done, file in enumerate(files):
            for batch in pq.ParquetFile(file).iter_batches(batch_size=_BATCH_ROWS, columns=["id", "messages", "split"]):
                _format_batch(batch, system, template, model, out)
            ctx.progress(fraction=(done + 1) / len(files), rows=out.rows_in)
    return out.metrics()


def _format_batch(
    batch: pa.RecordBatch, system: list[Message], template: ChatTemplate, model: ModelTokens, out: "_Output"
) -> None:
    rows: list[tuple[str, str, list[Message], Rendered]] = []
    for record_id, messages, split in _records(batch):
        if system and messages[0][0] != "system":
            messages = system + messages
        try:
            rows.append((record_id, split, messages, template.render(messages)))
        except TemplateMismatch:
            out.refuse(record_id, "prompt_is_no_beginning", 0)
    for (record_id, split, messages, _), row in zip(rows, tokenise(model, [row[3] for row in rows]), strict=True):
        out.add(record_id, split, messages, row)
    out.flush()


def _records(batch: pa.RecordBatch) -> Iterator[tuple[str, list[Message], str]]:
    yield from zip(batch.column("id").to_pylist(), conversations(batch), batch.column("split").to_pylist(), strict=True)


class _Output:
    """Writes the three files and counts what goes into them."""

    def __init__(self, folder: Path, model: ModelTokens, max_seq_len: int) -> None:
        self._model = model
        self._max_seq_len = max_seq_len
        self._train = pq.ParquetWriter(folder / "train.parquet", _SCHEMA, compression="zstd")
        self._test = (folder / "test.jsonl").open("w", encoding="utf-8", newline="\n")
        self._quarantine = (folder / "quarantine.jsonl").open("w", encoding="utf-8", newline="\n")
        self._rows: list[tuple[str, list[int], list[int]]] = []
        self._lengths: list[int] = []
        self._train_prompts: list[int] = []
        self._test_prompts: set[int] = set()
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._preview: list[dict[str, Any]] = []
        self.rows_in = 0

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._train, self._test, self._quarantine):
            file.close()

    def refuse(self, record_id: str, reason: str, length: int) -> None:
        """Leave a record out, with its reason."""
        self.rows_in += 1
        self._reasons[reason] += 1
        self._quarantine.write(json.dumps({"id": record_id, "reason": reason, "length": length}) + "\n")

    def add(self, record_id: str, split: str, messages: list[Message], row: Tokenised) -> None:
        """Take one tokenised record, or refuse it if it is too long."""
        if len(row.ids) > self._max_seq_len:
            self.refuse(record_id, "too_long", len(row.ids))
            return
        self.rows_in += 1
        start, end = row.answers[-1]
        prompt = hash(tuple(row.ids[:start]))
        if split == "test":
            self._test_prompts.add(prompt)
            self._add_test(record_id, messages, row.ids[:start], row.ids[start:end])
            return
        self._train_prompts.append(prompt)
        labels = labels_of(row)
        learnt = len(labels) - labels.count(IGNORED)
        self._counts["tokens"] += len(row.ids)
        self._counts["supervised_tokens"] += learnt
        self._counts["rows_fully_masked"] += learnt == 0
        self._counts["rows_without_end_token"] += not all(
            labels[end - 1] in self._model.end_ids for _, end in row.answers
        )
        self._counts["rows_with_two_begin_tokens"] += row.ids[:2] == [self._model.begin_id] * 2
        if not self._preview:
            self._preview = self._pieces(row.ids, labels)
        self._lengths.append(len(row.ids))
        self._rows.append((record_id, row.ids, labels))

    def _add_test(self, record_id: str, messages: list[Message], prompt_ids: list[int], answer_ids: list[int]) -> None:
        question = next(content for role, content in reversed(messages) if role == "user")
        line = {
            "id": record_id,
            "messages": [{"role": role, "content": content} for role, content in messages[:-1]],
            "question": question,
            "answer": messages[-1][1],
            "prompt_ids": prompt_ids,
            "answer_ids": answer_ids,
        }
        self._test.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._counts["test_rows"] += 1
        self._counts["test_rows_without_end_token"] += answer_ids[-1] not in self._model.end_ids

    def _pieces(self, ids: list[int], labels: list[int]) -> list[dict[str, Any]]:
        """A row as text, cut where learning starts and stops; made from the labels, so that it shows what is true."""
        pieces: list[dict[str, Any]] = []
        first = 0
        for i in range(1, len(ids) + 1):
            if i == len(ids) or (labels[i] == IGNORED) != (labels[first] == IGNORED):
                text = self._model.tokenizer.decode(ids[first:i], skip_special_tokens=False)
                pieces.append({"text": text, "learnt": labels[first] != IGNORED})
                first = i
        return pieces

    def flush(self) -> None:
        """Write the training rows gathered so far as one row group."""
        if not self._rows:
            return
        offsets = pa.array(np.cumsum([0] + [len(ids) for _, ids, _ in self._rows]), pa.int32())
        ids = pa.array(np.concatenate([np.asarray(ids, np.int32) for _, ids, _ in self._rows]))
        labels = pa.array(np.concatenate([np.asarray(labels, np.int32) for _, _, labels in self._rows]))
        columns = [
            pa.array([record_id for record_id, _, _ in self._rows]),
            pa.ListArray.from_arrays(offsets, ids),
            pa.ListArray.from_arrays(offsets, labels),
            pa.array([len(ids) for _, ids, _ in self._rows], pa.int32()),
        ]
        self._train.write_batch(pa.RecordBatch.from_arrays(columns, schema=_SCHEMA))
        self._rows = []

    def metrics(self) -> dict[str, Any]:
        """What the checks judge and the UI shows."""
        lengths = np.asarray(self._lengths)
        if not len(lengths) or not self._counts["test_rows"]:
            raise UserError(
                f"No {'test' if len(lengths) else 'training'} row is left of {self.rows_in} records: "
                f"{', '.join(f'{count} {reason}' for reason, count in self._reasons.items()) or 'there were none'}. "
                f"Rows are too long above max_seq_len ({self._max_seq_len} tokens): raise it, or shorten the rows."
            )
        counts, edges = np.histogram(lengths, bins=min(20, int(np.ptp(lengths)) + 1))
        tokens = self._counts["tokens"]
        return {
            "rows_in": self.rows_in,
            "train_rows": len(lengths),
            "test_rows": self._counts["test_rows"],
            "rows_quarantined": self._reasons.total(),
            "quarantined_by_reason": dict(sorted(self._reasons.items())),
            "rows_too_long": self._reasons["too_long"],
            "tokens": tokens,
            "supervised_tokens": self._counts["supervised_tokens"],
            "supervised_share": self._counts["supervised_tokens"] / tokens,
            "length_percentiles_tokens": {
                f"p{q}": int(np.percentile(lengths, q, method="higher")) for q in (0, 50, 90, 95, 99, 100)
            },
            "length_histogram": {"edges_tokens": [float(edge) for edge in edges], "rows": [int(n) for n in counts]},
            "end_token_ids": list(self._model.end_ids),
            "rows_without_end_token": self._counts["rows_without_end_token"],
            "test_rows_without_end_token": self._counts["test_rows_without_end_token"],
            "rows_fully_masked": self._counts["rows_fully_masked"],
            "begin_token_id": self._model.begin_id,
            "rows_with_two_begin_tokens": self._counts["rows_with_two_begin_tokens"],
            "train_test_overlap": sum(prompt in self._test_prompts for prompt in self._train_prompts),
            "masked_preview": self._preview,
        }
