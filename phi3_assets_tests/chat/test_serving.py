"""Several askers share the models: one answer at a time, stopped when its reader goes, closed when room is short."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

from phi3_assets.chat import serving
from phi3_assets.chat.serving import Models, Which
from phi3_assets.core.errors import UserError

ASK = {"system_prompt": "", "max_new_tokens": 8}
HELLO = [{"role": "user", "content": "hello"}]


class Steps:
    """An engine that makes a token each time it is let to; counts how many answers run at once."""

    context_tokens, ends = 60, {0}

    def __init__(self, variant: str, endless: bool = False) -> None:
        self.variant = variant
        self.endless = endless
        self.running = self.most_running = self.made = 0
        self.closed = threading.Event()

    def encode(self, messages):
        return [1] * sum(len(message["content"]) for message in messages)

    def generate(self, prompt_ids, max_new_tokens):
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            while self.endless or self.made < 3:
                self.made += 1
                yield 5
                threading.Event().wait(0.01)
            yield 0
        finally:
            self.running -= 1
            self.closed.set()

    def text_stream(self):
        return lambda token: "ok "


@pytest.fixture
def directories(tmp_path) -> dict[str, Path]:
    """Artefacts of 100 bytes."""
    found = {}
    for name in ("base_model", "lora_adapter", "merged_model", "onnx_int4_model"):
        found[name] = tmp_path / name
        found[name].mkdir()
        (found[name] / "weights").write_bytes(bytes(100))
    return found


@pytest.fixture
def opened(monkeypatch) -> list[Steps]:
    """Every engine that was opened."""
    engines: list[Steps] = []

    def open_engine(variant, directories):
        engines.append(Steps(variant))
        return engines[-1]

    monkeypatch.setattr(serving, "open_engine", open_engine)
    return engines


async def events_of(models: Models, variant: str, **ask):
    async with aclosing(models.answer(Which(), variant, HELLO, **{**ASK, **ask})) as events:
        return [event async for event in events]


def test_a_model_is_opened_once_and_answers_one_at_a_time(directories, opened):
    async def both():
        models = Models(lambda which, variant: directories)
        return await asyncio.gather(events_of(models, "int4"), events_of(models, "int4"))

    first, second = asyncio.run(both())
    assert [event["state"] for event in first if "state" in event] == ["loading", "answering"]
    assert [event["state"] for event in second if "state" in event] == ["waiting", "answering"]
    assert [engine.most_running for engine in opened] == [1]
    assert first[-1]["stop"] == second[-1]["stop"] == "end"


def test_closing_the_answer_stops_the_model(directories, opened):
    async def stopped():
        models = Models(lambda which, variant: directories)
        await events_of(models, "int4")
        engine = opened[0]
        engine.endless = True
        engine.closed.clear()
        async with aclosing(models.answer(Which(), "int4", HELLO, system_prompt="", max_new_tokens=1000)) as events:
            async for event in events:
                if "text" in event:
                    break
        made = engine.made
        assert engine.closed.is_set(), "the model was still busy when the next asker could have had it"
        await asyncio.sleep(0.1)
        assert engine.made == made

    asyncio.run(stopped())


def test_a_retrained_model_answers_the_next_question(directories, opened, tmp_path):
    found = dict(directories)

    async def twice():
        models = Models(lambda which, variant: dict(found))
        await events_of(models, "int4")
        await events_of(models, "int4")
        found["onnx_int4_model"] = directories["merged_model"]
        return await events_of(models, "int4")

    assert {"state": "loading"} in asyncio.run(twice())
    assert len(opened) == 2


def test_the_longest_unused_makes_room(directories, opened):
    """Each takes 200 bytes of 500, base + adapter 400."""

    async def ask_all():
        models = Models(lambda which, variant: directories, lambda variant: 500 - 200 * len(models.opened()))
        for variant in ("int4", "base", "int4", "merged"):
            await events_of(models, variant)
        assert models.opened() == ["merged", "int4"]
        await events_of(models, "adapter")
        assert models.opened() == ["adapter"]

    asyncio.run(ask_all())


def test_no_room_is_said_with_the_way_out(directories, opened):
    async def ask():
        await events_of(Models(lambda which, variant: directories, lambda variant: 100), "merged")

    with pytest.raises(UserError, match=r"merged takes about .* GB of memory and .* ask int4"):
        asyncio.run(ask())
    assert opened == []


def test_a_variant_that_was_not_made_names_the_way_out(directories, opened):
    del directories["lora_adapter"]
    models = Models(lambda which, variant: directories)
    assert "needs lora_adapter: materialise it first" in models.problem(Which(), "adapter")
    assert models.problem(Which(), "merged") == ""
    with pytest.raises(UserError, match="needs lora_adapter"):
        asyncio.run(events_of(models, "adapter"))


def test_why_an_answer_ended(directories, opened):
    """The question is 5 of 60 tokens; the engine never ends by itself."""

    async def ends():
        models = Models(lambda which, variant: directories)
        await events_of(models, "int4")
        opened[0].generate = lambda prompt_ids, max_new_tokens: iter([5] * max_new_tokens)
        limit = await events_of(models, "int4")
        context = await events_of(models, "int4", max_new_tokens=1000)
        return limit[-1], context[-1]

    limit, context = asyncio.run(ends())
    assert (limit["stop"], limit["tokens"]) == ("limit", 8)
    assert (context["stop"], context["tokens"]) == ("context", 55)
