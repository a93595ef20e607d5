"""What `benchmarks evaluate` compares with: a plain loop, torch's int8, lm-eval, and how fast bytes are copied."""

import json
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._rows import SHAPES, write_chats
from phi3_assets.core.machine import cores
from phi3_assets.evaluation.items import Item

LM_EVAL_ROWS = 8
COPIED_BYTES = 1 << 28
COPIES = 8


def shape_items(shape: str, count: int, tokenizer: Any) -> list[Item]:
    """Questions of a shape of `SHAPES`, in the model's template; no two begin alike after it."""
    with tempfile.TemporaryDirectory() as name:
        write_chats(Path(name), shape, count * len(SHAPES))
        lines = [
            line for path in sorted(Path(name).iterdir()) for line in path.read_text(encoding="utf-8").splitlines()
        ]
    items = []
    for number, line in enumerate(lines[:count]):
        messages = json.loads(line)["messages"]
        answer = messages[-1]["content"]
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, tokenize=False)
        items.append(
            Item(
                id=str(number),
                messages=messages,
                question=messages[-2]["content"],
                answer=answer,
                prompt_ids=tuple(tokenizer.encode(asked, add_special_tokens=False)),
                answer_ids=(*tokenizer.encode(answer, add_special_tokens=False), tokenizer.eos_token_id),
            )
        )
    return items


def plain_loop(model: Any, items: Sequence[Item], max_new_tokens: int) -> list[float]:
    """What a notebook does; returns each item's NLL."""
    import torch

    found = []
    for item in items:
        with torch.inference_mode():
            logits = model(torch.tensor([item.prompt_ids + item.answer_ids])).logits
            answers = logits[0, len(item.prompt_ids) - 1 : -1]
            found.append(torch.nn.functional.cross_entropy(answers, torch.tensor(item.answer_ids)).item())
            prompt = torch.tensor([item.prompt_ids])
            model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=max_new_tokens
            )
    return found


def torch_int8(model: Any) -> Any:
    """The model with its linear layers in 8 bits, by torch alone."""
    import torch
    from torch.ao.quantization import quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        quantise: Any = quantize_dynamic  # untyped
        return quantise(model, {torch.nn.Linear}, dtype=torch.qint8)


def lm_eval(model: Any, tokenizer: Any, items: Sequence[Item], max_new_tokens: int) -> list[float]:
    """lm-eval's own model class, its batches and its order; returns each item's NLL.

    Raises:
        ImportError: It is not installed.
    """
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    side = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=LM_EVAL_ROWS, device="cpu")
    asked = [((item.question, item.answer), list(item.prompt_ids), list(item.answer_ids)) for item in items]
    likely = side._loglikelihood_tokens(asked, disable_tqdm=True)
    options = {"until": [], "max_gen_toks": max_new_tokens, "do_sample": False}
    prompts = [tokenizer.decode(item.prompt_ids) for item in items]
    written = [Instance("generate_until", {}, (prompt, options), number) for number, prompt in enumerate(prompts)]
    side.generate_until(written, disable_tqdm=True)
    return [-total / len(item.answer_ids) for (total, _), item in zip(likely, items, strict=True)]


def copy_bandwidth() -> float:
    """Bytes that this machine copies in a second on the cores that this process may use; the best of some."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    source, target = torch.ones(COPIED_BYTES, dtype=torch.uint8), torch.empty(COPIED_BYTES, dtype=torch.uint8)
    best = float("inf")
    for _ in range(COPIES):
        started = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return COPIED_BYTES / best
