"""Scores the int4 model with what runs on the device: ONNX Runtime GenAI, one prompt at a time.

Prompts are not batched: GenAI's `encode_batch` pads short prompts on the right and then generates after the padding,
which is another text. Prefill and cache are shared between likelihood and generation by rewinding.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from phi3_assets.evaluation.general import Passage
from phi3_assets.evaluation.items import Item, RawScore
from phi3_assets.evaluation.speed import STEPS, Speed, time_decoding
from phi3_assets.models.genai import greedy, new_generator, new_tokens

PATHS_COMPARED = 4  # items; that two paths differ is a matter of the kernel and not of the question


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
    if start > 1:
        generator.append_tokens(list(item.prompt_ids[:-1]))
    nll = _answer_loss(generator, item.prompt_ids, item.answer_ids)
    other_nll = _answer_loss(generator, item.prompt_ids, item.other_ids) if item.other_ids else None
    generator.append_tokens([item.prompt_ids[-1]])
    generated: list[int] = []
    for token in islice(new_tokens(generator), max_new_tokens):
        if token in ends:
            return RawScore(nll, other_nll, tuple(generated), stopped=True)
        generated.append(token)
    return RawScore(nll, other_nll, tuple(generated), stopped=False)


def _answer_loss(generator: Any, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> float:
    """Mean nats per answer token; the generator stands before the prompt's last token, and does again afterwards."""
    # The logits of the prompt's last token and of all answer tokens but the end token predict the answer.
    generator.append_tokens([prompt_ids[-1], *answer_ids[:-1]])
    nll = mean_nll(generator.get_output("logits")[0], answer_ids)
    generator.rewind_to(len(prompt_ids) - 1)
    return nll


def path_difference(model: Any, items: Sequence[Item]) -> float:
    """Most nats per token by which the likelihood of an answer in one pass differs from that of one token at a time.

    Answers are generated a token at a time, and int4 kernels compute a single row in another order than rows together:
    likelihoods and answers are numbers of two models that are not quite the same. Zero where they are.
    """
    most = 0.0
    for item in items[:PATHS_COMPARED]:
        start = len(item.prompt_ids)
        generator = new_generator(model, start + len(item.answer_ids))
        if start > 1:
            generator.append_tokens(list(item.prompt_ids[:-1]))
        together = _answer_loss(generator, item.prompt_ids, item.answer_ids)
        nats = 0.0
        for token, target in zip([item.prompt_ids[-1], *item.answer_ids[:-1]], item.answer_ids, strict=True):
            generator.append_tokens([token])
            nats += mean_nll(generator.get_output("logits")[0][-1:], [target])
        most = max(most, abs(nats / len(item.answer_ids) - together))
    return round(most, 9)


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
