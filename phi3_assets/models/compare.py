"""Do two models say the same? Logits of a few fixed prompts, side by side."""

from collections.abc import Sequence
from typing import Any

PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return a +",
    "HTTP status 404 means that the server",
    "1, 2, 3, 4,",
)


def prompt_ids(tokenizer: Any, limit: int = 32) -> list[list[int]]:
    """Token ids of the fixed prompts, each of at most `limit` tokens."""
    return [tokenizer(text, add_special_tokens=False)["input_ids"][:limit] for text in PROMPTS]


def max_logit_difference(left: Any, right: Any, prompts: Sequence[Sequence[int]]) -> float:
    """Largest absolute difference between two models' logits over all positions of all prompts.

    Args:
        left: A causal language model of transformers, on any device.
        right: Another with the same vocabulary.
        prompts: Token ids, one list per prompt.
    """
    import torch

    worst = 0.0
    with torch.inference_mode():
        for ids in prompts:
            a = left(input_ids=torch.tensor([list(ids)], device=left.device)).logits.float().cpu()
            b = right(input_ids=torch.tensor([list(ids)], device=right.device)).logits.float().cpu()
            worst = max(worst, float((a - b).abs().max()))
    return worst
