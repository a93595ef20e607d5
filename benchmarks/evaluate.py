"""Our evaluation against a plain `transformers` loop and lm-eval on the same items, and our chat against bare GenAI.

    python -m benchmarks evaluate             (about five minutes on two cores after `make run`)
    python -m benchmarks evaluate --shapes    (about ten: long prompts and answers of several kinds)

The plain loop does what a notebook does: for each item one forward pass for the likelihood and one `generate`, batch 1.
int4 stands against it on the merged model twice, as it is and as torch quantises it to 8 bits.
lm-eval batches both, on its own model class (`pip install lm-eval` beside the lock; left out without). All sides score
the same items to the same numbers, in turn; the numbers are compared before the times are. Decoding of int4 is told
beside the roof that memory sets: the bytes that a token reads, over what the machine copies in that time.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks._evaluate_sides import copy_bandwidth, lm_eval, plain_loop, shape_items, torch_int8
from benchmarks._made import made
from phi3_assets.chat import Reply, stream
from phi3_assets.chat.engines import GenaiEngine
from phi3_assets.core.home import default_home
from phi3_assets.evaluation import genai_scorer, torch_scorer
from phi3_assets.evaluation.items import Item, load_items
from phi3_assets.models import genai
from phi3_assets.models.end_tokens import end_token_ids, genai_end_token_ids
from phi3_assets.steps.scoring import load_tokenizer

BARS = {"base": 2.0, "adapter": 2.0, "merged": 2.0, "int4": 3.0, "int8": 1.0, "chat": 0.95, "lm-eval": 2.0, "roof": 0.9}
SHAPE_ITEMS = {"chat": 12, "documents": 6, "several turns": 12}
KINDS = ("base_model", "formatted_corpus", "lora_adapter", "merged_model", "onnx_int4_model")
PRODUCT = "evaluate-benchmark"
CHAT_TOKENS = 96
CHAT_ROUNDS = 12


def run(args: Sequence[str]) -> dict[str, Any]:
    """Measure; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks evaluate", description=__doc__)
    parser.add_argument("--home", type=Path, default=default_home(), help="PHI3_HOME; models that stand are reused")
    parser.add_argument("--items", type=int, default=32, help="test items, half of them in each of two rounds")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--shapes", action="store_true", help="conversations of other shapes than the sample's")
    options = parser.parse_args(args)
    found = made(options.home, "smol-cpu", PRODUCT, KINDS)
    tokenizer = load_tokenizer(found["base_model"])
    sides = Sides(found, tokenizer, options.max_new_tokens)
    if options.shapes:
        return shapes(sides, tokenizer)
    # The plain loop does not ask for the likelihood of answers to other questions, so neither do we here.
    items = [replace(item, other_ids=()) for item in load_items(found["formatted_corpus"] / "test.jsonl")]
    items = items[: options.items]
    ratios = {}
    print(f"{len(items)} items\n{'':10} {'plain loop':>12} {'ours':>12} {'ratio':>7}   items per second")
    for variant in ("base", "adapter", "merged", "int4", "int8"):
        plain, ours = sides.compare(variant, sides.plain, items)
        ratios[variant] = plain / ours
        print(f"{variant:10} {len(items) / plain:12.2f} {len(items) / ours:12.2f} {ratios[variant]:7.2f}")
    if find_spec("lm_eval"):
        peer, ours = sides.compare("merged", sides.lm_eval, items)
        ratios["lm-eval"] = peer / ours
        print(f"{'lm-eval':10} {len(items) / peer:12.2f} {len(items) / ours:12.2f} {ratios['lm-eval']:7.2f}   merged")
    int4 = found["onnx_int4_model"]
    bare, chat = compare_chat(int4, [item.prompt_ids for item in items])
    ratios["chat"] = chat / bare
    print(f"{'chat':10} {bare:12.1f} {chat:12.1f} {ratios['chat']:7.3f}   tokens per second")
    read, copied = sum(path.stat().st_size for path in int4.glob("model.onnx*")), copy_bandwidth()
    ratios["roof"] = bare * read / copied
    print(
        f"roof       {read / 1e6:.1f} MB a token at {bare:.0f} tokens/s: {bare * read / 1e9:.1f} GB/s, "
        f"{ratios['roof']:.2f} of the {copied / 1e9:.1f} GB/s that this machine copies"
    )
    worst = min(ratios, key=lambda name: ratios[name] / BARS[name])
    return {
        "name": "evaluate",
        "ratio": round(ratios[worst], 3),
        "bar": BARS[worst],
        "ok": all(ratio >= BARS[name] for name, ratio in ratios.items()),
        "judged_by": worst,
        "ratios": {name: round(value, 3) for name, value in ratios.items()},
        "bars": BARS,
        "items": len(items),
    }


def shapes(sides: "Sides", tokenizer: Any) -> dict[str, Any]:
    """The merged model on each shape, against both rivals; the ratio is the worst against the stronger one."""
    ratios: dict[str, dict[str, float]] = {}
    rivals = {"plain loop": sides.plain, **({"lm-eval": sides.lm_eval} if find_spec("lm_eval") else {})}
    print(f"{'':15}{'prompt':>8}{'answer':>8}{'ours, items/s':>15}" + "".join(f"{name:>12}" for name in rivals))
    for shape, count in SHAPE_ITEMS.items():
        items = shape_items(shape, count, tokenizer)
        ratios[shape] = {}
        for name, rival in rivals.items():
            theirs, ours = sides.compare("merged", rival, items)
            ratios[shape][name] = theirs / ours
        prompt, answer = (
            sum(len(part) for part in parts) / count
            for parts in ([item.prompt_ids for item in items], [item.answer_ids for item in items])
        )
        told = "".join(f"{ratio:>11.2f}x" for ratio in ratios[shape].values())
        print(f"{shape:15}{prompt:>8.0f}{answer:>8.0f}{count / ours:>15.2f}{told}")
    worst = {name: min(one[name] for one in ratios.values()) for name in rivals}
    return {
        "name": "evaluate --shapes",
        "ratio": round(min(worst.values()), 3),
        "bar": BARS["lm-eval"],
        "ok": min(worst.values()) >= BARS["lm-eval"],
        "worst": {name: round(ratio, 3) for name, ratio in worst.items()},
        "shapes": {shape: {name: round(value, 3) for name, value in one.items()} for shape, one in ratios.items()},
    }


Side = Callable[[Any, Sequence[Item]], list[float]]


class Sides:
    """Ours and the rivals on the same models."""

    def __init__(self, found: dict[str, Path], tokenizer: Any, max_new_tokens: int) -> None:
        self._found, self._max_new_tokens = found, max_new_tokens
        self.plain: Side = partial(plain_loop, max_new_tokens=max_new_tokens)
        self.lm_eval: Side = lambda model, items: lm_eval(model, tokenizer, items, max_new_tokens)

    def compare(self, variant: str, rival: Side, items: list[Item]) -> tuple[float, float]:
        """Seconds of a rival and of ours, in turn over two rounds.

        int4 stands against merged in the rival's hands, and with "int8" against what torch itself makes of it: linear
        layers in 8 bits, activations as they come.
        """
        folder = self._found["base_model" if variant in ("base", "adapter") else "merged_model"]
        model = torch_scorer.load_model(folder, self._found["lora_adapter"] if variant == "adapter" else None)
        ends = end_token_ids(folder)
        ours_is_int4 = variant in ("int4", "int8")
        if variant == "int8":
            model = torch_int8(model)
        if ours_is_int4:
            int4 = genai.load_model(self._found["onnx_int4_model"])
            int4_ends = genai_end_token_ids(self._found["onnx_int4_model"])

        def ours(part: list[Item]) -> list[float]:
            if ours_is_int4:
                return [score.nll for score in genai_scorer.score(int4, part, int4_ends, self._max_new_tokens)]
            return [score.nll for score in torch_scorer.score(model, part, ends, self._max_new_tokens)]

        rival(model, items[:1])
        ours(items[:1])
        seconds = [0.0, 0.0]
        half = len(items) // 2
        for part in (items[:half], items[half:]):
            seconds[0] += (taken := clocked(partial(rival, model, part)))[0]
            seconds[1] += (mine := clocked(partial(ours, part)))[0]
            if not ours_is_int4:
                assert all(abs(one - other) < 1e-3 for one, other in zip(taken[1], mine[1], strict=True))
        return seconds[0], seconds[1]


def clocked(work: Callable[[], list[float]]) -> tuple[float, list[float]]:
    """Seconds and result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


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
        engine.encode = lambda messages, prompt=prompt: list(prompt)  # type: ignore[method-assign, misc]
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
