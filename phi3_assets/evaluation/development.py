"""The development split: training rows that are held out of training, to choose by.

Which block size, which damping, which layers get 8 bits: such questions are answered on these rows. The test set is for
what was chosen, once. They are the rows that recipe field eval_share holds out of training, and out of what quantising
learns from: whole groups, by a hash of the group, so a larger share holds out the same rows and more.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.items import Item, others
from phi3_assets.olive.corpus import IGNORED_LABEL, read_held_out

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHARE = 0.1
"""Of the training rows; what to set eval_share to where a question is to be answered and the recipe holds out none."""


def development_items(train_file: Path, tokenizer: "PreTrainedTokenizerBase", share: float = SHARE) -> list[Item]:
    """The split as items of an evaluation, in the order of the corpus; the last answer of a conversation is asked for.

    Args:
        train_file: train.parquet of formatted_corpus.
        tokenizer: The one that the corpus was made with.
        share: Share of the groups; the eval_share of the training whose model is asked.

    Raises:
        UserError: The share takes no row, or a row has no prompt that could be put to a model.
    """
    items = []
    for row in read_held_out(train_file, share, columns=("id", "input_ids", "labels", "group")).to_pylist():
        first, end = _last_answer(row["labels"])
        if first == 0:
            raise UserError(
                f"The development split cannot be asked: row {row['id']} of {train_file.name} is learnt from its first "
                "token on, so it has no prompt. Use supervise: answers without strategy: join."
            )
        prompt_ids, answer_ids = tuple(row["input_ids"][:first]), tuple(row["input_ids"][first:end])
        question, answer = (tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in (prompt_ids, answer_ids))
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        items.append(Item(row["id"], messages, question, answer, prompt_ids, answer_ids, f"{row['group']:x}"))
    if not items:
        raise UserError(
            f"The development split is empty: eval_share {share} takes none of the training rows, which are chosen by "
            "a hash of their group. Raise it or add data."
        )
    return [replace(item, other_ids=other) for item, other in zip(items, others(items), strict=True)]


def _last_answer(labels: list[int]) -> tuple[int, int]:
    """First position of the last run of learnt tokens, and the one behind it."""
    end = max(at for at, label in enumerate(labels) if label != IGNORED_LABEL) + 1
    first = end
    while first and labels[first - 1] != IGNORED_LABEL:
        first -= 1
    return first, end
