"""Scores the int4 model with what runs on the device: ONNX Runtime GenAI, one prompt at a time.

Prompts are not batched: GenAI's `encode_batch` pads short prompts on the right and then generates after the padding,
which is another text.

Likelihoods are read the way answers are written: the prompt in one pass, then a token at a time. int4 kernels add up a
single row in another order than rows together (measured: 0.003 nats per token), so an answer that was read in one pass
would be judged by another model than the one that answers. The prefill is shared by rewinding.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from phi3_assets.evaluation.general import Passage
from phi3_assets.evaluation.items import Item, RawScore
from phi3_assets.evaluation.speed import STEPS, Speed, time_decoding
from phi3_assets.models.genai import greedy, new_generator, new_tokens


def score(
    model: Any,
    items: Sequence[Item],
    ends: Collection[int],
    max_new_tokens: int,
    tick: Callable[[int], None] = lambda _: None,
) -> list[RawScore]:
    """Likelihood of each reference answer and the greedy answer of the model itself.

    Args:
        model: From `phi3_assets.models.genai.load_model`.
        items: The test set.
        ends: From `phi3_assets.models.end_tokens.genai_end_token_ids`.
        max_new_tokens: Longest generated answer, end token included.
        tick: Called with the number of items done so far.

    Returns:
        One score per item, in the order of `items`.
    """
    scores = []
    for item in items:
        scores.append(_score_item(model, item, ends, max_new_tokens))
        tick(len(scores))
    return scores


def _score_item(model: Any, item: Item, ends: Collection[int], max_new_tokens: int) -> RawScore:
    start = len(item.prompt_ids)
    generator = new_generator(model, start + max(max_new_tokens, len(item.answer_ids), len(item.other_ids)))
    generator.append_tokens(list(item.prompt_ids))
    # A copy: the runtime writes the next logits into the same memory.
    first = _last_logits(generator).copy()
    generated: list[int] = []
    nats: list[float] = []  # of the reference answer, up to where the model's own leaves it
    stopped = False
    for token in islice(new_tokens(generator), max_new_tokens):
        if tuple(generated) == item.answer_ids[: len(nats)] and len(nats) < len(item.answer_ids):
            # The runtime has not gone on yet: these are the logits that the token was chosen by.
            nats.append(mean_nll(_last_logits(generator), [item.answer_ids[len(nats)]]))
        stopped = token in ends
        if stopped:
            break
        generated.append(token)
    nll = _answer_loss(generator, start, item.answer_ids, nats)
    other_nll = None
    if item.other_ids:
        other_nll = _answer_loss(generator, start, item.other_ids, [mean_nll(first, item.other_ids[:1])])
    return RawScore(nll, other_nll, tuple(generated), stopped)


def _answer_loss(generator: Any, start: int, answer_ids: Sequence[int], nats: list[float]) -> float:
    """Mean nats per token of an answer behind a prompt of `start` tokens, of which the first `nats` are known."""
    generator.rewind_to(start + len(nats) - 1)
    for token, target in pairwise(answer_ids[len(nats) - 1 :]):
        generator.append_tokens([token])
        nats.append(mean_nll(_last_logits(generator), [target]))
    return math.fsum(nats) / len(nats)


def _last_logits(generator: Any) -> Any:
    """Logits of the next token, shape (1, vocabulary)."""
    return generator.get_output("logits")[0][-1:]


def losses(model: Any, passages: Sequence[Passage]) -> list[float]:
    """Nats of the scored tokens of each passage, summed; in the order of `passages`."""
    # One for all: a new one takes 20 ms, a passage of a small model less than 1.
    generator = new_generator(model, max(len(passage.ids) for passage in passages))
    found = []
    for passage in passages:
        generator.rewind_to(0)
        generator.append_tokens(list(passage.ids[:-1]))
        targets = passage.ids[passage.start :]
        logits = generator.get_output("logits")[0][passage.start - 1 :]
        found.append(mean_nll(logits, targets) * len(targets))
    return found


def mean_nll(logits: Any, targets: Sequence[int]) -> float:
    """Mean of -log softmax(logits)[target], in nats.

    Args:
        logits: Array of shape (tokens, vocabulary); row i predicts targets[i].
        targets: Token ids.
    """
    import numpy as np

    rows = np.asarray(logits, dtype=np.float32)
    highest = rows.max(axis=-1, keepdims=True)
    log_sums = np.log(np.exp(rows - highest).sum(axis=-1, dtype=np.float64))
    picked = (rows - highest)[np.arange(len(targets)), list(targets)]
    return float((log_sums - picked).mean())


def has_chat_template(directory: Path) -> bool:
    """Whether a model folder knows how to turn messages into a prompt."""
    config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    return (directory / "chat_template.jinja").exists() or bool(config.get("chat_template"))


def prompts_as_trained(model: Any, directory: Path, items: Sequence[Item]) -> float:
    """Share of items whose prompt comes out of the folder's own tokenizer and chat template as it was trained on.

    Anything below 1.0 means that a device asks the model differently, and gets other answers than those scored here.
    """
    import onnxruntime_genai

    if not has_chat_template(directory):
        return 0.0
    tokenizer = onnxruntime_genai.Tokenizer(model)
    same = 0
    for item in items:
        text = tokenizer.apply_chat_template(json.dumps(item.prompt_messages), add_generation_prompt=True)
        same += tuple(tokenizer.encode(text)) == item.prompt_ids
    return round(same / len(items), 6)


def speed(model: Any, prompt_ids: Sequence[int]) -> Speed:
    """Time to first token and decoding speed for one user."""

    def start() -> Iterator[int]:
        # min_length keeps it going over an end token: as many steps as with the other variants
        return greedy(model, prompt_ids, STEPS + 1, min_length=len(prompt_ids) + STEPS + 1)

    answers = [start()]

    def prefill() -> None:
        answers[0] = start()
        next(answers[0])

    return time_decoding(len(prompt_ids), prefill, lambda: next(answers[0]))
