"""Our evaluation against a plain `transformers` loop on the same items, and our chat against a bare GenAI loop.

    make run                               (once: it makes the models that are measured)
    python -m benchmarks evaluate          (about five minutes on two cores)

The plain loop does what a notebook does: for each item one forward pass for the likelihood and one `generate`, batch 1.
Both sides score the same items to the same numbers, in turn; the numbers are compared before the times are.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from phi3_assets.chat import Reply, stream
from phi3_assets.chat.engines import GenaiEngine
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import artefact_dir, default_home
from phi3_assets.core.manifest import MANIFEST
from phi3_assets.evaluation import genai_scorer, torch_scorer
from phi3_assets.evaluation.items import Item, load_items
from phi3_assets.models import genai
from phi3_assets.models.end_tokens import end_token_ids, genai_end_token_ids
from phi3_assets.steps import STEPS

BARS = {"base": 2.0, "adapter": 2.0, "merged": 2.0, "int4": 3.0, "chat": 0.95}
CHAT_TOKENS = 96
CHAT_ROUNDS = 12


def run(args: Sequence[str]) -> dict[str, Any]:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks evaluate", description=__doc__)
    parser.add_argument("--home", type=Path, default=default_home(), help="PHI3_HOME with models from `phi3 run`")
    parser.add_argument("--items", type=int, default=32, help="test items, half of them in each of two rounds")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    options = parser.parse_args(args)
    found = {kind: newest(options.home, kind) for kind in KINDS}
    # The plain loop does not ask for the likelihood of answers to other questions, so neither do we here.
    items = [replace(item, other_ids=()) for item in load_items(found["formatted_corpus"] / "test.jsonl")]
    items = items[: options.items]
    ratios = {}
    print(f"{len(items)} items\n{'':10} {'plain loop':>12} {'ours':>12} {'ratio':>7}   items per second")
    for variant in ("base", "adapter", "merged", "int4"):
        plain, ours = compare(variant, found, items, options.max_new_tokens)
        ratios[variant] = plain / ours
        print(f"{variant:10} {len(items) / plain:12.2f} {len(items) / ours:12.2f} {ratios[variant]:7.2f}")
    bare, chat = compare_chat(found["onnx_int4_model"], [item.prompt_ids for item in items])
    ratios["chat"] = chat / bare
    print(f"{'chat':10} {bare:12.1f} {chat:12.1f} {ratios['chat']:7.3f}   tokens per second")
    worst = min(BARS, key=lambda name: ratios[name] / BARS[name])
    return {
        "name": "evaluate",
        "ratio": round(ratios[worst], 3),
        "bar": BARS[worst],
        "ok": all(ratios[name] >= bar for name, bar in BARS.items()),
        "judged_by": worst,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "bars": BARS,
        "items": len(items),
    }


KINDS = ("formatted_corpus", "base_model", "lora_adapter", "merged_model", "onnx_int4_model")


def newest(home: Path, kind: str) -> Path:
    """The artefact of this kind that was made last."""
    folder = artefact_dir(home, STEPS[kind].folder, kind, "x").parent
    made = [path.parent for path in folder.glob(f"*/{MANIFEST}")]
    if not made:
        raise UserError(f"{home} has no {kind} yet. Make one with `phi3 run --home {home}`, or name another --home.")
    return max(made, key=lambda path: (path / MANIFEST).stat().st_mtime)


def compare(variant: str, found: dict[str, Path], items: list[Item], max_new_tokens: int) -> tuple[float, float]:
    """Seconds of the plain loop and of ours, in turn over two rounds; int4 stands against merged in the plain loop."""
    folder = found["base_model" if variant in ("base", "adapter") else "merged_model"]
    model = torch_scorer.load_model(folder, found["lora_adapter"] if variant == "adapter" else None)
    ends = end_token_ids(folder)
    if variant == "int4":
        int4 = genai.load_model(found["onnx_int4_model"])
        int4_ends = genai_end_token_ids(found["onnx_int4_model"])

    def ours(part: list[Item]) -> list[float]:
        if variant == "int4":
            return [score.nll for score in genai_scorer.score(int4, part, int4_ends, max_new_tokens)]
        return [score.nll for score in torch_scorer.score(model, part, ends, max_new_tokens)]

    plain_loop(model, items[:1], 2)
    ours(items[:1])
    seconds = [0.0, 0.0]
    half = len(items) // 2
    for part in (items[:half], items[half:]):
        seconds[0] += (taken := clocked(lambda part=part: plain_loop(model, part, max_new_tokens)))[0]
        seconds[1] += (mine := clocked(lambda part=part: ours(part)))[0]
        if variant != "int4":
            assert all(abs(one - other) < 1e-3 for one, other in zip(taken[1], mine[1], strict=True))
    return seconds[0], seconds[1]


def clocked(work: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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


class LongAnswers(GenaiEngine):
    """Our engine, kept from ending: long enough to be timed."""

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Any:
        """As the engine does, past any end token."""
        length = len(prompt_ids) + max_new_tokens
        return genai.greedy(self._model, prompt_ids, max_new_tokens, min_length=length)


def compare_chat(folder: Path, prompts: Sequence[Sequence[int]]) -> tuple[float, float]:
    """Decoding tokens per second of a bare GenAI loop and of our chat; medians over rounds in turn."""
    import statistics

    engine = LongAnswers(folder)
    engine.ends = set()
    bare, chat = [], []
    for round_number in range(CHAT_ROUNDS + 1):
        prompt = prompts[round_number % len(prompts)]
        engine.encode = lambda messages, prompt=prompt: list(prompt)  # type: ignore[method-assign]
        bare.append(bare_loop(engine._model, prompt))
        reply = Reply()
        for _ in stream(engine, [], CHAT_TOKENS, reply):
            pass
        chat.append(reply.tokens_per_s)
    return statistics.median(bare[1:]), statistics.median(chat[1:])  # the first round warms up


def bare_loop(model: Any, prompt: Sequence[int]) -> float:
    """Tokens per second after the first, with nothing around the runtime's own calls."""
    length = len(prompt) + CHAT_TOKENS
    generator = genai.new_generator(model, length, min_length=length)
    generator.append_tokens(list(prompt))
    generator.generate_next_token()
    start = time.perf_counter()
    steps = 0
    while not generator.is_done():
        generator.generate_next_token()
        steps += 1
    return steps / (time.perf_counter() - start)
