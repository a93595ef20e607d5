"""The frozen test set as the scorers see it, and the raw result of one item on one variant."""

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.step import sha256_of

NEEDED = ("id", "messages", "question", "answer", "prompt_ids", "answer_ids")


@dataclass(frozen=True)
class Item:
    """One question of the test set, tokenised by formatted_corpus exactly as the training rows are.

    Attributes:
        id: The row's id.
        messages: Chat messages of the prompt and the answer.
        question: What the user asks.
        answer: The reference answer.
        prompt_ids: Tokens of the prompt, up to and including what opens the assistant's turn.
        answer_ids: Tokens of the reference answer; the last one is the end token.
        group: Names the dataset's group that the row is in; "": not known.
        source: File that the row came from; "": not known.
        other_ids: Tokens of the answer to another question; a model that learnt answers prefers its own. Empty if all
            items have the same answer.
    """

    id: str
    messages: list[dict[str, Any]]
    question: str
    answer: str
    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    group: str = ""
    source: str = ""
    other_ids: tuple[int, ...] = ()

    @property
    def prompt_messages(self) -> list[dict[str, Any]]:
        """Messages up to the answer."""
        return self.messages[:-1] if self.messages[-1]["role"] == "assistant" else self.messages


@dataclass(frozen=True)
class RawScore:
    """What a model made of one item.

    Attributes:
        nll: Mean negative log-likelihood of the reference answer, in nats per token, end token included.
        generated_ids: Greedily generated tokens, without the end token.
        other_nll: The same of the answer to another question; None if there is none.
        stopped: True if the model ended by itself, with an end token among its first max_new_tokens tokens.
    """

    nll: float
    other_nll: float | None
    generated_ids: tuple[int, ...]
    stopped: bool


def load_items(path: Path) -> list[Item]:
    """Read test.jsonl.

    Raises:
        UserError: No rows, or a row without one of the needed fields or without tokens.
    """
    items = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            row = json.loads(line)
            missing = [name for name in NEEDED if name not in row]
            if missing:
                raise UserError(f"{path.name}, row {number}: no {', '.join(missing)}. Make formatted_corpus anew.")
            if not row["prompt_ids"] or not row["answer_ids"]:
                raise UserError(f"{path.name}, row {number} ({row['id']}): prompt or answer has no tokens.")
            items.append(
                Item(
                    id=str(row["id"]),
                    messages=row["messages"],
                    question=row["question"],
                    answer=row["answer"],
                    prompt_ids=tuple(row["prompt_ids"]),
                    answer_ids=tuple(row["answer_ids"]),
                    group=row.get("group", ""),
                    source=row.get("source", ""),
                )
            )
    if not items:
        raise UserError(
            f"{path.name} holds no row: the test set is empty. Add rows to the dataset or raise test_share."
        )
    return [replace(item, other_ids=other) for item, other in zip(items, others(items), strict=True)]


def by_hash(items: list[Item], most: int) -> list[Item]:
    """At most so many, in their order; 0: all.

    Those with the smallest hashes of their ids, so the choice is the same whatever the order, for every model, and as
    the test set grows a new item takes the place of an old one only where its own hash is smaller.
    """
    if not most or len(items) <= most:
        return items
    taken = set(sorted((item.id for item in items), key=sha256_of)[:most])
    chosen = [item for item in items if item.id in taken]
    return [replace(item, other_ids=other) for item, other in zip(chosen, others(chosen), strict=True)]


def others(items: list[Item]) -> list[tuple[int, ...]]:
    """For each item the answer of another one, the same whatever the order of the rows.

    Each gets the next answer of its own file, in the order of the alphabet, so that the two are of one kind: any answer
    on a subject, also a wrong one, is preferred to an answer on another subject. (Seen: a model that was trained on
    shuffled answers about signals preferred them to answers about HTTP.) Every answer is once the own one and once the
    other, so which of them are likely by themselves cancels out. Where a file has one answer alone, the next of all
    files is taken.
    """
    every = _following(items)
    within = {
        source: _following([item for item in items if item.source == source])
        for source in {item.source for item in items}
    }
    return [within[item.source].get(item.answer_ids) or every.get(item.answer_ids, ()) for item in items]


def _following(items: list[Item]) -> dict[tuple[int, ...], tuple[int, ...]]:
    """The next answer by answer; empty where there are no two."""
    ordered = sorted(items, key=lambda item: (item.answer, item.id))
    answers = list(dict.fromkeys(item.answer_ids for item in ordered))
    return dict(zip(answers, answers[1:] + answers[:1], strict=True)) if len(answers) > 1 else {}


def tokens_of(tokenizer: Any, end: int, item: Item) -> Item:
    """The same question and answer in the tokens of this model, asked as a device asks; it has no other answer yet."""
    prompt = tokenizer.apply_chat_template(item.prompt_messages, add_generation_prompt=True, tokenize=False)
    prompt_ids, answer_ids = (tokenizer(text, add_special_tokens=False).input_ids for text in (prompt, item.answer))
    return replace(item, prompt_ids=tuple(prompt_ids), answer_ids=(*answer_ids, end), other_ids=())


def end_token(tokenizer: Any, ends: Collection[int]) -> int:
    """The token that ends an answer: of several the tokenizer's own."""
    return int(tokenizer.eos_token_id) if tokenizer.eos_token_id in ends else min(ends)


def test_set_digest(items: list[Item]) -> str:
    """SHA-256 of what is asked and expected, whatever the tokenizer: tells whether two reports are comparable."""
    return sha256_of(sorted(([item.id, item.messages, item.answer] for item in items), key=lambda row: str(row[0])))
