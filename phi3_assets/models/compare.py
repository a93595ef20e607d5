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


def prompt_logits(model: Any, prompts: Sequence[Sequence[int]]) -> Any:
    """Logits over all positions of all prompts, float32 (total tokens, vocabulary), on the host.

    Args:
        model: A causal language model of transformers or PEFT, on any device.
        prompts: Token ids, one list per prompt.
    """
    import torch

    with torch.inference_mode():
        each = [model(input_ids=torch.tensor([list(ids)], device=model.device)).logits[0] for ids in prompts]
    return torch.cat(each).float().cpu()


def max_difference(left: Any, right: Any) -> float:
    """Largest absolute difference between two tensors of one shape."""
    return float((left - right).abs().max())
