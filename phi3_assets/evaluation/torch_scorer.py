"""Scores a Hugging Face model (base, base + adapter, merged), and measures its speed.

Numbers equal those of one prompt at a time up to float32 rounding (tested against `generate` at batch 1).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_assets.evaluation.batching import cache_bytes, item_batches, passage_batches
from phi3_assets.evaluation.general import Passage
from phi3_assets.evaluation.items import Item, RawScore
from phi3_assets.evaluation.speed import Speed, time_decoding
from phi3_assets.evaluation.torch_batches import hidden, pad, score_batch
from phi3_assets.models.four_bit import FourBit
from phi3_assets.models.loading import load_as

CPU_NUMBER_BYTES = 4
"""On a CPU all models are scored in float32, so that one machine's numbers are another's."""


def load_model(directory: Path, adapter: Path | None = None, *, on_gpu: bool | None = None) -> Any:
    """Load a causal language model for inference.

    Args:
        directory: Hugging Face model directory.
        adapter: PEFT directory laid over it, as training saw it where that was in 4 bits; the layers are wrapped, not
            merged.
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
    model: Any = (
        AutoModelForCausalLM.from_pretrained(directory, dtype="auto", local_files_only=True)
        if on_gpu
        else load_as(directory, torch.float32)  # CPUs emulate 16-bit arithmetic, tens of times slower
    )
    if adapter is not None:
        from peft import PeftModel

        if (trained_on := FourBit.read(adapter)) is not None:
            for name, weight in model.named_parameters():
                weight.data = trained_on.seen(name, weight.data).to(weight.dtype)
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
            found = score_batch(model, [items[index] for index in batch], ends, max_new_tokens)
            scores.update(zip(batch, found, strict=True))
            tick(len(scores))
    return [scores[index] for index in range(len(items))]


def losses(model: Any, passages: Sequence[Passage]) -> list[float]:
    """Nats of the scored tokens of each passage, summed; in the order of `passages`."""
    import torch

    found: dict[int, float] = {}
    with torch.inference_mode():
        for batch in passage_batches(passages):
            ids, mask = pad([passages[index].ids for index in batch], model.device, left=False)
            states = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            for row, index in enumerate(batch):
                start, end = passages[index].start, len(passages[index].ids)
                logits = model.lm_head(states[row, start - 1 : end - 1]).float()
                found[index] = torch.nn.functional.cross_entropy(logits, ids[row, start:end], reduction="sum").item()
    return [found[index] for index in range(len(passages))]


def greedy(model: Any, prompt_ids: Sequence[int]) -> Iterator[int]:
    """The greedy answer to one prompt, token by token and without end; the caller knows where to stop."""
    import torch
    from transformers import DynamicCache

    cache = DynamicCache()
    ids = torch.tensor([list(prompt_ids)], device=model.device)
    while True:
        with torch.inference_mode():
            mask = ids.new_ones(1, cache.get_seq_length() + ids.shape[1])
            ids = model.lm_head(hidden(model, ids, mask, cache)[:, -1:]).argmax(dim=-1)
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
