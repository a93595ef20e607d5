"""Attention of a training in bfloat16 on a CPU, in blocks of queries.

torch's own kernel for it multiplies small tiles, far slower than a large product in bfloat16: it was nearly half of a
training on documents. Here each block of queries meets all tokens up to its end in one product. As in flash attention
no probabilities are kept; the backward pass makes them again, block by block.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from phi3_assets.core.errors import UserError

BLOCKS = "blocks_of_queries"
"""The name by which transformers knows it."""
FLASH = "flash_attention_2"
# Few enough that the scores of a block stay in the cache, and little of what they do not see is multiplied.
_BLOCK = 64


def chosen(params: Mapping[str, Any], *, on_gpu: bool) -> str:
    """The name, to transformers, of the attention that a training uses.

    Args:
        params: Recipe fields of the step.
        on_gpu: Whether a GPU trains.

    Raises:
        UserError: flash_attention_2 where it cannot be.
    """
    from transformers.utils import is_flash_attn_2_available

    choice: str = params["attn_implementation"]
    in_bfloat16 = params["torch_dtype"] == "bfloat16"
    if choice == FLASH:
        needed = {
            "a CUDA GPU": on_gpu,
            "torch_dtype: bfloat16": in_bfloat16,
            "the package flash-attn": bool(is_flash_attn_2_available()),
        }
        if missing := [what for what, there in needed.items() if not there]:
            raise UserError(
                f"attn_implementation: {FLASH} needs {' and '.join(missing)}. Or set attn_implementation: auto."
            )
    if choice == "auto":
        return BLOCKS if in_bfloat16 and not on_gpu else "sdpa"
    return choice


def use(model: Any, name: str) -> None:
    """Let a model of transformers attend by what `chosen` returned."""
    register()
    model.set_attn_implementation(name)


def register() -> None:
    """Make `BLOCKS` known to transformers."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(BLOCKS, _attend)
    AttentionMaskInterface.register(BLOCKS, sdpa_mask)


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **kwargs: Any) -> Any:
    """What transformers calls; see `causal_attention`."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if kwargs.get("dropout") or key.shape[2] != query.shape[2]:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    mixed = causal_attention(query * kwargs["scaling"], key, value, attention_mask)
    return mixed.transpose(1, 2).contiguous(), None


def causal_attention(query: Any, key: Any, value: Any, mask: Any = None) -> Any:
    """Mix for each token the values of those up to it.

    Args:
        query: (batch, heads, tokens, size), scaled.
        key: (batch, groups, tokens, size); consecutive heads share those of a group.
        value: As `key`.
        mask: (batch or 1, 1, tokens, tokens), of which nothing after a query's own token is visible: bool, True where
            visible; or what is added to the scores. None: all up to the query's own token is visible.

    Returns:
        (batch, heads, tokens, size).
    """
    batch, heads, tokens, size = query.shape
    grouped = query.reshape(batch * key.shape[1], -1, tokens, size)
    mixed = _function().apply(grouped, key.flatten(0, 1), value.flatten(0, 1), mask)
    return mixed.view(batch, heads, tokens, size)


@cache
def _function() -> Any:
    """Of query (groups, heads of each, tokens, size) with key and value (groups, tokens, size).

    Made when torch is first needed, since importing it takes seconds.
    """
    import torch
    from torch.autograd.function import once_differentiable

    class InBlocks(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, query: Any, key: Any, value: Any, mask: Any) -> Any:
            ctx.save_for_backward(query, key, value, mask)
            mixed = torch.empty_like(query)
            for rows, seen in _blocks(query.shape[2]):
                probabilities = _probabilities(query, key, mask, rows, seen)
                mixed[:, :, rows] = (probabilities @ value[:, seen]).view_as(query[:, :, rows])
            return mixed

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, gradient: Any) -> tuple[Any, Any, Any, None]:
            query, key, value, mask = ctx.saved_tensors
            of_query = torch.empty_like(query)
            # Sums over blocks are rounded once, at the end.
            of_key, of_value = (torch.zeros_like(tensor, dtype=torch.float32) for tensor in (key, value))
            for rows, seen in _blocks(query.shape[2]):
                probabilities = _probabilities(query, key, mask, rows, seen)
                wanted = gradient[:, :, rows].flatten(1, 2)
                of_value[:, seen] += probabilities.transpose(1, 2) @ wanted
                of_probabilities = wanted @ value[:, seen].transpose(1, 2)
                of_scores = torch._softmax_backward_data(of_probabilities, probabilities, -1, query.dtype)
                of_query[:, :, rows] = (of_scores @ key[:, seen]).view_as(query[:, :, rows])
                of_key[:, seen] += of_scores.transpose(1, 2) @ query[:, :, rows].flatten(1, 2)
            return of_query, of_key.to(key.dtype), of_value.to(value.dtype), None

    return InBlocks


def _blocks(tokens: int) -> Iterator[tuple[slice, slice]]:
    """Queries of each block, and the tokens up to its end."""
    for start in range(0, tokens, _BLOCK):
        end = min(start + _BLOCK, tokens)
        yield slice(start, end), slice(end)


def _probabilities(query: Any, key: Any, mask: Any, rows: slice, seen: slice) -> Any:
    """What each query takes of each token: (groups, heads of each times rows, seen)."""
    import torch

    asking = query[:, :, rows]
    scores = asking.flatten(1, 2) @ key[:, seen].transpose(1, 2)
    by_head = scores.view(*asking.shape[:3], -1)
    if mask is None:
        future = torch.ones(asking.shape[2], asking.shape[2], dtype=torch.bool).triu_(1)
        by_head[..., rows].masked_fill_(future, float("-inf"))
    else:
        part = mask[:, :, rows, seen]
        masked = by_head.view(len(mask), -1, *part.shape[2:])
        masked.masked_fill_(~part, torch.finfo(scores.dtype).min) if part.dtype == torch.bool else masked.add_(part)
    return torch.softmax(scores, -1)
