"""Batches of an evaluation in torch, and the memory that they take, from the model's configuration alone."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.evaluation.general import Passage
from phi3_assets.evaluation.items import Item
from phi3_assets.models.directory import tensor_headers
from phi3_assets.models.sizes import NUMBER_BYTES, memory_bytes

MAX_BATCH_ITEMS = 32
MAX_BATCH_TOKENS = 4096  # prompts and answers with padding
# On a CPU, glibc keeps freed blocks that lie between ones in use; measured on Phi-3-mini's widths.
_HEAP_OVERHEAD = 4 / 3
MAX_CACHE_BYTES = 2**30  # keys and values of a batch; a large model has fewer tokens in it


def item_batches(items: Sequence[Item], max_new_tokens: int, token_bytes: int) -> list[list[int]]:
    """Indices of the items of each batch.

    Args:
        items: The test set.
        max_new_tokens: Longest answer of the model itself.
        token_bytes: What `cache_bytes` says.
    """
    most = min(MAX_BATCH_TOKENS, MAX_CACHE_BYTES // token_bytes)
    return list(_batches([_tokens(item, max_new_tokens) for item in items], most))


def passage_batches(passages: Sequence[Passage]) -> list[list[int]]:
    """Indices of the passages of each batch; they are read once, without keys and values kept."""
    return list(_batches([len(passage.ids) for passage in passages], MAX_BATCH_TOKENS))


def cache_bytes(config: Any, number_bytes: int) -> int:
    """Bytes of the keys and values of one token; `number_bytes` is the size of a number of the model."""
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_size * number_bytes)


def needed_bytes(
    folders: Sequence[Path],
    number_bytes: int | None,
    items: Sequence[Item],
    passages: Sequence[Passage],
    max_new_tokens: int,
) -> int:
    """Most that scoring a model takes, beside the libraries.

    Args:
        folders: The model, and an adapter that is laid over it.
        number_bytes: Of a number of the model in memory; None: as in its files.
        items: The test set.
        passages: Of general text.
        max_new_tokens: As for `item_batches`.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folders[0])
    number = number_bytes or max(NUMBER_BYTES[one["dtype"]] for one in tensor_headers(folders[0]).values())
    token_bytes = cache_bytes(config, number)
    # Gate and up in one, the activation, their product; hidden states before, after and normed.
    layer = (4 * config.intermediate_size + 4 * config.hidden_size) * number
    asked = max(
        len(batch) * max(_tokens(items[at], max_new_tokens) for at in batch)
        for batch in item_batches(items, max_new_tokens, token_bytes)
    )
    read = max((len(batch) * len(passages[batch[0]].ids) for batch in passage_batches(passages)), default=0)
    # Logits of one passage, in float32 too, and their logarithms; hidden states of its batch.
    longest = max((len(passage.ids) for passage in passages), default=0)
    logits = longest * config.vocab_size * (number + 8) + read * config.hidden_size * number
    weights = sum(memory_bytes(folder, number_bytes) for folder in folders)
    return int(weights + _HEAP_OVERHEAD * max(asked * (token_bytes + layer), read * layer, logits))


def _tokens(item: Item, max_new_tokens: int) -> int:
    """Most that the cache will hold of an item: its prompt, and the longest of the answers that are read or written."""
    return len(item.prompt_ids) + max(len(item.answer_ids), len(item.other_ids), max_new_tokens)


def _batches(lengths: Sequence[int], most_tokens: int) -> Iterator[list[int]]:
    """Indices grouped by like length, longest first: a batch that does not fit in memory fails at once, not late.

    Args:
        lengths: Tokens of each.
        most_tokens: Of a batch of several, with padding.
    """
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if batch and (len(batch) == MAX_BATCH_ITEMS or (len(batch) + 1) * lengths[batch[0]] > most_tokens):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
