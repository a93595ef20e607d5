"""Scores a Hugging Face model (base, base + adapter, merged) in batches, with one prefill per prompt.

A batch is prefilled once, prompts padded on the left so that all of them end in the same column. The reference answers
are then run on top of the key-value cache for their likelihood, the cache is cropped back to the prompts, and the
greedy answers grow from it. Rows that reached their end token leave the batch. Nothing of the size of the vocabulary
outlives one row, so a long test set takes no more memory than a short one.

Numbers equal those of one prompt at a time up to float32 rounding (tested against `generate` at batch 1).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi3_assets.evaluation.batching import cache_bytes, item_batches, passage_batches
from phi3_assets.evaluation.general import Passage
from phi3_assets.evaluation.items import Item, RawScore
from phi3_assets.evaluation.speed import Speed, time_decoding

if TYPE_CHECKING:
    import torch

CPU_NUMBER_BYTES = 4
"""On a CPU all models are scored in float32, so that one machine's numbers are another's."""


def load_model(directory: Path, adapter: Path | None = None, *, on_gpu: bool | None = None) -> Any:
    """Load a causal language model for inference.

    Args:
        directory: Hugging Face model directory.
        adapter: PEFT directory laid over it; the layers are wrapped, not merged.
        on_gpu: Where to; None: to a GPU if there is one.

    Returns:
        The `PreTrainedModel`; with an adapter, the same class with adapted layers in it.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if on_gpu is None:
        on_gpu = torch.cuda.is_available()
    model: Any = AutoModelForCausalLM.from_pretrained(
        # CPUs emulate 16-bit arithmetic, tens of times slower than float32
        directory,
        dtype="auto" if on_gpu else torch.float32,
        local_files_only=True,
    )
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, str(adapter)).get_base_model()
    return model.to("cuda" if on_gpu else "cpu").eval()


def score(
    model: Any,
    items: Sequence[Item],
    ends: Collection[int],
    max_new_tokens: int,
    tick: Callable[[int], None] = lambda _: None,
) -> list[RawScore]:
    """Likelihood of each reference answer and the greedy answer of the model itself.

    Args:
        model: From `load_model`.
        items: The test set.
        ends: From `phi3_assets.models.end_tokens.end_token_ids`.
        max_new_tokens: Longest generated answer, end token included.
        tick: Called with the number of items done so far, after each batch.

    Returns:
        One score per item, in the order of `items`.
    """
    import torch

    scores: dict[int, RawScore] = {}
    with torch.inference_mode():
        for batch in item_batches(items, max_new_tokens, cache_bytes(model.config, model.dtype.itemsize)):
            found = _score_batch(model, [items[index] for index in batch], ends, max_new_tokens)
            scores.update(zip(batch, found, strict=True))
            tick(len(scores))
    return [scores[index] for index in range(len(items))]


def losses(model: Any, passages: Sequence[Passage]) -> list[float]:
    """Nats of the scored tokens of each passage, summed; in the order of `passages`."""
    import torch

    found: dict[int, float] = {}
    with torch.inference_mode():
        for batch in passage_batches(passages):
            ids, mask = _pad([passages[index].ids for index in batch], model.device, left=False)
            states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for row, index in enumerate(batch):
                start, end = passages[index].start, len(passages[index].ids)
                logits = model.lm_head(states[row, start - 1 : end - 1]).float()
                found[index] = torch.nn.functional.cross_entropy(logits, ids[row, start:end], reduction="sum").item()
    return [found[index] for index in range(len(passages))]


def _score_batch(model: Any, items: Sequence[Item], ends: Collection[int], max_new_tokens: int) -> list[RawScore]:
    from transformers import DynamicCache

    prompts, prompt_mask = _pad([item.prompt_ids for item in items], model.device, left=True)
    # Without a configuration the cache keeps all positions, also of sliding-window layers, so it can be cropped.
    cache = DynamicCache()
    last = _hidden(model, prompts, prompt_mask, cache)[:, -1]
    losses = _answer_losses(model, [item.answer_ids for item in items], last, prompt_mask, cache)
    other_losses: Sequence[float | None] = [None] * len(items)
    if all(item.other_ids for item in items):
        other_losses = _answer_losses(model, [item.other_ids for item in items], last, prompt_mask, cache)
    generated, stopped = _generate(model, last, prompt_mask, cache, ends, max_new_tokens)
    return [
        RawScore(nll, other_nll, tuple(tokens), ended)
        for nll, other_nll, tokens, ended in zip(losses, other_losses, generated, stopped, strict=True)
    ]


def _answer_losses(
    model: Any,
    answer_ids: Sequence[Sequence[int]],
    last: "torch.Tensor",
    prompt_mask: "torch.Tensor",
    cache: Any,
) -> list[float]:
    """Mean nats per answer token; leaves the cache as it was.

    `last` is the hidden state of each prompt's last token, shape (items, hidden); `prompt_mask` has shape (items,
    longest prompt).
    """
    import torch

    answers, answer_mask = _pad(answer_ids, model.device, left=False)
    states = last[:, None]
    if answers.shape[1] > 1:
        mask = torch.cat([prompt_mask, answer_mask[:, :-1]], dim=1)
        states = torch.cat([states, _hidden(model, answers[:, :-1], mask, cache)], dim=1)
        cache.crop(-(answers.shape[1] - 1))
    losses = []
    for row, ids in enumerate(answer_ids):
        length = len(ids)
        logits = model.lm_head(states[row, :length]).float()
        losses.append(torch.nn.functional.cross_entropy(logits, answers[row, :length]).item())
    return losses


def _generate(
    model: Any, last: "torch.Tensor", mask: "torch.Tensor", cache: Any, ends: Collection[int], max_new_tokens: int
) -> tuple[list[list[int]], list[bool]]:
    """Greedy answers of a prefilled batch; finished rows are dropped from cache and mask."""
    import torch

    generated: list[list[int]] = [[] for _ in range(last.shape[0])]
    stopped = [False] * last.shape[0]
    rows = list(range(last.shape[0]))  # row of the batch -> index of the item
    tokens = model.lm_head(last).argmax(dim=-1)
    for step in range(max_new_tokens):
        going = []
        for position, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if token in ends:
                stopped[row] = True
            else:
                generated[row].append(token)
                going.append(position)
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(rows):
            keep = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(keep)
            mask, tokens = mask[keep], tokens[keep]
            rows = [rows[position] for position in going]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        tokens = model.lm_head(_hidden(model, tokens[:, None], mask, cache)[:, -1]).argmax(dim=-1)
    return generated, stopped


def _hidden(model: Any, ids: "torch.Tensor", mask: "torch.Tensor", cache: Any) -> "torch.Tensor":
    """Run tokens on top of the cache and return their last hidden states, shape (items, tokens, hidden).

    `ids` is what is new, shape (items, tokens); `mask` is 0 where padding stands, shape (items, cached + new tokens).
    """
    # A row's position counts its own tokens, not the padding before them.
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output: torch.Tensor = model.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return output


def _pad(rows: Sequence[Sequence[int]], device: Any, *, left: bool) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Token rows as one tensor (items, longest) and its mask; padding is token 0 under mask 0."""
    import torch

    longest = max(len(row) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[index, place] = torch.tensor(row)
        mask[index, place] = 1
    return ids.to(device), mask.to(device)


def greedy(model: Any, prompt_ids: Sequence[int]) -> Iterator[int]:
    """The greedy answer to one prompt, token by token and without end; the caller knows where to stop."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    ids = torch.tensor([list(prompt_ids)], device=model.device)
    while True:
        with torch.inference_mode():
            mask = ids.new_ones(1, cache.get_seq_length() + ids.shape[1])
            ids = model.lm_head(_hidden(model, ids, mask, cache)[:, -1:]).argmax(dim=-1)
        yield int(ids)


def speed(model: Any, prompt_ids: Sequence[int]) -> Speed:
    """Time to first token, decoding speed and memory for one user; on a GPU its own memory."""
    import torch

    answers = [greedy(model, prompt_ids)]

    def prefill() -> None:
        answers[0] = greedy(model, prompt_ids)
        next(answers[0])

    if model.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = time_decoding(len(prompt_ids), prefill, lambda: next(answers[0]))
    return replace(found, peak_memory_bytes=torch.cuda.max_memory_allocated()) if model.device.type == "cuda" else found
