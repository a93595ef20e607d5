"""Scoring of int4 models as a device runs them, of this release, the champion and earlier ones alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation import genai_scorer
from phi3_assets.evaluation.general import GeneralSuite
from phi3_assets.evaluation.items import Item, end_token, others, tokens_of
from phi3_assets.evaluation.kept_scores import VariantScores
from phi3_assets.models import genai
from phi3_assets.models.end_tokens import genai_end_token_ids


def score_int4(
    folder: Path,
    items: Sequence[Item],
    suite: GeneralSuite,
    max_new_tokens: int,
    tick: Callable[[int], None] = lambda _: None,
) -> VariantScores:
    """Score an int4 folder on items in its own tokens.

    Raises:
        UserError: Its configuration names no end token.
    """
    ends = genai_end_token_ids(folder)
    if not ends:
        raise UserError("Variant int4: its configuration names no end token, so no answer could ever stop.")
    model = genai.load_model(folder)
    return VariantScores(
        genai_scorer.score(model, items, ends, max_new_tokens, tick),
        suite.summarise(genai_scorer.losses(model, suite.passages)),
        genai_scorer.prompts_as_trained(model, folder, items),
    )


def asks_alike(folder: Path, tokenizer: Any, items: Sequence[Item]) -> bool:
    """Whether an int4 folder's own tokenizer and template give the tokens of these items."""
    if not genai_scorer.has_chat_template(folder):
        return False
    return all(tokens_of(tokenizer, 0, item).prompt_ids == item.prompt_ids for item in items)


def in_own_tokens(folder: Path, tokenizer: Any, items: Sequence[Item]) -> list[Item]:
    """The same questions in the tokens of another model: that of a champion on another base model.

    Args:
        folder: Its int4 model.
        tokenizer: Its tokenizer.
        items: The questions in other tokens.

    Raises:
        UserError: It has no chat template or no end token, so nobody knows how it is asked.
    """
    ends = genai_end_token_ids(folder)
    if not ends or not genai_scorer.has_chat_template(folder):
        raise UserError(
            f"The int4 model in {folder} has no chat template or end token, so it cannot be put the same questions. "
            "Retire this champion (phi3 champion retire): the next release that is fit becomes it."
        )
    found = [tokens_of(tokenizer, end_token(tokenizer, ends), item) for item in items]
    return [replace(item, other_ids=other) for item, other in zip(found, others(found), strict=True)]
