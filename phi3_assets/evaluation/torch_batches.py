"""One batch of an evaluation in torch: the likelihood of reference answers and the model's own, with one prefill.

A batch is prefilled once, prompts padded on the left so that all of them end in the same column. The reference answers
are then run on top of the key-value cache for their likelihood, which also says what the model itself would have said
in each place: a greedy answer is written token by token only from where it departs from the reference. Rows that
reached their end token leave the batch. Nothing of the size of the vocabulary outlives one row, so a long test set
takes no more memory than a short one.
"""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from phi3_assets.evaluation.items import Item, RawScore

if TYPE_CHECKING:
    import torch


def score_batch(model: Any, items: Sequence[Item], ends: Collection[int], max_new_tokens: int) -> list[RawScore]:
    """Scores of items that fit into one batch; see `torch_scorer.score`."""
    from transformers import DynamicCache

    prompts, mask = pad([item.prompt_ids for item in items], model.device, left=True)
    # Without a configuration the cache keeps all positions, also of sliding-window layers, so it can be cropped.
    cache = DynamicCache()
    last = hidden(model, prompts, mask, cache)[:, -1]
    other_losses: Sequence[float | None] = [None] * len(items)
    if all(item.other_ids for item in items):
        other_losses, _ = _read(model, [item.other_ids for item in items], last, mask, cache)
        _crop(cache, mask.shape[1])
    answers = [item.answer_ids for item in items]
    losses, chosen = _read(model, answers, last, mask, cache)
    generated, stopped = _generate(model, answers, chosen, mask, cache, ends, max_new_tokens)
    return [
        RawScore(nll, other_nll, tuple(tokens), ended)
        for nll, other_nll, tokens, ended in zip(losses, other_losses, generated, stopped, strict=True)
    ]


def _read(
    model: Any,
    answer_ids: Sequence[Sequence[int]],
    last: "torch.Tensor",
    prompt_mask: "torch.Tensor",
    cache: Any,
) -> tuple[list[float], list[list[int]]]:
    """Mean nats per answer token, and what the model itself would say in the place of each.

    Leaves all tokens of the answers but their last in the cache.

    Args:
        model: From `load_model`.
        answer_ids: An answer to each prompt.
        last: Hidden state of each prompt's last token, shape (items, hidden).
        prompt_mask: Shape (items, longest prompt).
        cache: Of the prompts.
    """
    import torch

    answers, answer_mask = pad(answer_ids, model.device, left=False)
    states = last[:, None]
    if answers.shape[1] > 1:
        mask = torch.cat([prompt_mask, answer_mask[:, :-1]], dim=1)
        states = torch.cat([states, hidden(model, answers[:, :-1], mask, cache)], dim=1)
    losses, chosen = [], []
    for row, ids in enumerate(answer_ids):
        logits = model.lm_head(states[row, : len(ids)]).float()
        losses.append(torch.nn.functional.cross_entropy(logits, answers[row, : len(ids)]).item())
        chosen.append(logits.argmax(dim=-1).tolist())
    return losses, chosen


def _generate(
    model: Any,
    answer_ids: Sequence[Sequence[int]],
    chosen: Sequence[Sequence[int]],
    prompt_mask: "torch.Tensor",
    cache: Any,
    ends: Collection[int],
    max_new_tokens: int,
) -> tuple[list[list[int]], list[bool]]:
    """Greedy answers of a batch whose reference answers were read.

    As far as a greedy answer is the reference, it is known already, and so is the token with which it departs; each is
    gone on with from there.

    Args:
        model: From `load_model`.
        answer_ids: As for `_read`.
        chosen: What `_read` gave.
        prompt_mask: As for `_read`.
        cache: As `_read` left it.
        ends: Tokens that end an answer.
        max_new_tokens: Longest answer, end token included.
    """
    import torch

    generated: list[list[int]] = [[] for _ in answer_ids]
    stopped = [False] * len(answer_ids)
    followed: dict[int, int] = {}  # row that goes on -> tokens of the reference before that place
    for row, (reference, own) in enumerate(zip(answer_ids, chosen, strict=True)):
        for place, token in enumerate(own):
            if token in ends:
                stopped[row] = True
                break
            generated[row].append(token)
            if len(generated[row]) == max_new_tokens:
                break
            if token != reference[place] or place == len(own) - 1:
                followed[row] = place
                break
    rows = list(followed)
    if not rows:
        return generated, stopped
    mask = _moved_together(cache, prompt_mask, [followed.get(row, 0) for row in range(len(generated))])
    going = rows
    while rows:
        if len(going) < mask.shape[0]:
            keep = torch.tensor(going, device=mask.device)
            cache.batch_select_indices(keep)
            mask = mask[keep]
        tokens = torch.tensor([[generated[row][-1]] for row in rows], device=mask.device)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        states = hidden(model, tokens, mask, cache)[:, -1]
        going = []  # positions in the batch
        for position, (row, token) in enumerate(zip(rows, model.lm_head(states).argmax(dim=-1).tolist(), strict=True)):
            if token in ends:
                stopped[row] = True
                continue
            generated[row].append(token)
            if len(generated[row]) < max_new_tokens:
                going.append(position)
        rows = [rows[position] for position in going]
    return generated, stopped


def _moved_together(cache: Any, prompt_mask: "torch.Tensor", followed: Sequence[int]) -> "torch.Tensor":
    """Cut each row of the cache behind so many tokens of its answer, and move what is left to the right; its mask.

    Padding in the midst would count for sliding windows, which look at columns. Keys know their positions already.
    """
    import torch

    width = prompt_mask.shape[1] + max(followed)
    _crop(cache, width)
    shift = torch.tensor([[max(followed) - count] for count in followed], device=prompt_mask.device)
    columns = torch.arange(width, device=prompt_mask.device)[None] - shift
    mask = torch.cat([prompt_mask, prompt_mask.new_ones(len(followed), max(followed))], dim=1)
    mask = mask.gather(1, columns.clamp(min=0)) * (columns >= 0)
    for layer in cache.layers:
        for name in ("keys", "values"):
            held = getattr(layer, name)
            place = columns.clamp(min=0)[:, None, :, None].expand(held.shape)
            setattr(layer, name, held.gather(2, place))
    return mask


def _crop(cache: Any, tokens: int) -> None:
    if more := cache.get_seq_length() - tokens:
        cache.crop(-more)


def hidden(model: Any, ids: "torch.Tensor", mask: "torch.Tensor", cache: Any) -> "torch.Tensor":
    """Run tokens on top of the cache and return their last hidden states, shape (items, tokens, hidden).

    Args:
        model: A causal language model of transformers.
        ids: What is new, shape (items, tokens).
        mask: 0 where padding stands, shape (items, cached + new tokens).
        cache: Keys and values of what came before.
    """
    # A row's position counts its own tokens, not the padding before them.
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    output: torch.Tensor = model.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    return output


def pad(rows: Sequence[Sequence[int]], device: Any, *, left: bool) -> tuple["torch.Tensor", "torch.Tensor"]:
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
