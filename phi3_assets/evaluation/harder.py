"""Harder questions: what the test set does not ask, and a model that knows its test set by heart may still not know.

The rows of a test set are drawn from the data. Where each fact is asked in several phrasings, its answer stands in
training word for word, and a good model soon gets all of them right. These questions are written for it: facts that
must be told apart or found from the other end, and near misses that have no answer. They are held out whole, stand in
the report as a block of their own, and decide nothing; who wants them to decide puts them into the dataset as a file
named test.

They are csv files with the columns of `COLUMNS`. Each names a wrong answer that is tempting: whether the right one is
likelier can be told long before a model writes it.
"""

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.step import sha256_of
from phi3_assets.evaluation.items import Item, end_token, tokens_of

COLUMNS = ("Question", "Best Answer", "Wrong Answer", "Kind", "About")
ALL = "all"


def load_harder(
    folder: Path, tokenizer: Any, ends: Collection[int], test_set: Sequence[Item]
) -> list[tuple[str, Item]]:
    """Kind and item of each question that is about the dataset.

    Args:
        folder: Holds csv files.
        tokenizer: The base model's.
        ends: Its end tokens.
        test_set: Tells which files the dataset has: a question about another one (`About`) is not asked. Its system
            message is put before these questions too.

    Raises:
        UserError: There is no csv file, one lacks a column, a cell is empty, or the model has no chat template.
    """
    files = sorted(folder.glob("*.csv"))
    if not files:
        raise UserError(f"harder_questions: {folder} holds no csv file. Its columns are {', '.join(COLUMNS)}.")
    if not tokenizer.chat_template:
        raise UserError(
            "harder_questions: the base model has no chat template to ask them with; leave the field empty."
        )
    known = {item.source for item in test_set}
    system = [message for message in test_set[0].messages[:1] if message["role"] == "system"]
    end = end_token(tokenizer, ends)
    found = []
    for file in files:
        for row in _rows(file):
            if row["About"] in known:
                question = {"role": "user", "content": row["Question"]}
                answer = {"role": "assistant", "content": row["Best Answer"]}
                item = Item(
                    id=sha256_of([row[name] for name in COLUMNS]),
                    messages=[*system, question, answer],
                    question=row["Question"],
                    answer=row["Best Answer"],
                    prompt_ids=(),
                    answer_ids=(),
                    source=file.name,
                )
                wrong = replace(item, answer=row["Wrong Answer"])
                asked = tokens_of(tokenizer, end, item)
                found.append((row["Kind"], replace(asked, other_ids=tokens_of(tokenizer, end, wrong).answer_ids)))
    return found


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"harder_questions: {file} is not UTF-8 (byte {error.start}); save it as such.") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"harder_questions: {file} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}.")
    rows = list(reader)
    for row in rows:
        if empty := [name for name in COLUMNS if not (row[name] or "").strip()]:
            raise UserError(f"harder_questions: {file}, question {row['Question']!r}: {', '.join(empty)} is empty.")
    return rows


def summarise_harder(records: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Of each kind, and of `ALL`: how many questions, and each variant's numbers.

    Args:
        records: As lines of items.jsonl, with their kind.
        variants: Their names.

    Returns:
        By kind: {"items", "variants": {name: {"exact_match", "f1", "preferred"}}}; preferred is the share of questions
        whose right answer is likelier, per token, than the tempting wrong one.
    """
    kinds = dict.fromkeys(record["kind"] for record in records)
    parts = {kind: [record for record in records if record["kind"] == kind] for kind in kinds} | {ALL: list(records)}
    return {
        kind: {"items": len(part), "variants": {name: _numbers(part, name) for name in variants}}
        for kind, part in parts.items()
    }


def _numbers(records: Sequence[Mapping[str, Any]], variant: str) -> dict[str, float]:
    own = [record["variants"][variant] for record in records]

    def mean(values: Sequence[float]) -> float:
        return round(math.fsum(values) / len(own), 6)

    return {
        "exact_match": mean([one["exact_match"] for one in own]),
        "f1": mean([one["f1"] for one in own]),
        "preferred": mean([float(one["preference"] > 0) for one in own]),
    }
