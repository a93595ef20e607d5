"""Asking a model: the three ways to infer (base + adapter, merged, ONNX int4) and the base model, behind one interface.

`engines` opens a variant; `terminal` and `web` (over `serving`) talk to it; `examples` are plain scripts that do the
same without this package. Answers are greedy, as in the evaluation, so what the report shows is what one gets here.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from phi3_assets.core.errors import UserError

Message = dict[str, str]


class Engine(Protocol):
    """An opened model.

    Attributes:
        variant: base, adapter, merged or int4.
        context_tokens: Longest prompt and answer together.
        ends: Tokens that end an answer.
    """

    variant: str
    context_tokens: int
    ends: set[int]

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """The prompt's tokens, through the model's own chat template."""

    def generate(self, prompt_ids: Sequence[int], max_new_tokens: int) -> Iterator[int]:
        """Tokens of the greedy answer, at most max_new_tokens."""

    def text_stream(self) -> Callable[[int], str]:
        """A fresh decoder: takes one token, returns the text that is certain by now."""


@dataclass
class Reply:
    """What an answer was and took; filled while it streams.

    Attributes:
        text: The answer so far.
        tokens: Its tokens, without the end token.
        stopped: Ended by itself.
        context_full: Cut off where the model's context ends, before max_new_tokens.
        first_token_s: Seconds until the first token.
        decode_s: Seconds for all others.
    """

    text: str = ""
    tokens: int = 0
    stopped: bool = False
    context_full: bool = False
    first_token_s: float = 0.0
    decode_s: float = field(default=0.0, repr=False)
    _steps: int = field(default=0, repr=False)

    @property
    def tokens_per_s(self) -> float:
        """Decoding speed after the first token; 0 if there was only one."""
        return self._steps / self.decode_s if self.decode_s else 0.0


def stream(engine: Engine, messages: Sequence[Message], max_new_tokens: int, reply: Reply) -> Iterator[str]:
    """Answer, a piece for each token; empty where a character is not complete yet.

    Args:
        engine: The model.
        messages: The conversation; the last message is the user's.
        max_new_tokens: Longest answer; less if the context ends before.
        reply: Filled on the way.

    Raises:
        UserError: The conversation fills the model's context, so there is no room for an answer.
    """
    prompt = engine.encode(messages)
    room = engine.context_tokens - len(prompt)
    if room < 1:
        raise UserError(
            f"The conversation has {len(prompt)} tokens and the model's context {engine.context_tokens}: no room for "
            "an answer. Ask shorter."
        )
    decode = engine.text_stream()
    started = time.perf_counter()
    for number, token in enumerate(engine.generate(prompt, min(max_new_tokens, room))):
        now = time.perf_counter()
        if number == 0:
            reply.first_token_s, first_at = now - started, now
        reply.decode_s, reply._steps = now - first_at, number
        if token in engine.ends:
            reply.stopped = True
            break
        reply.tokens += 1
        piece = decode(token)
        reply.text += piece
        yield piece
    else:
        reply.context_full = room < max_new_tokens


def with_system(system_prompt: str, turns: list[Message]) -> list[Message]:
    """The turns after a system message, if there is one."""
    return [{"role": "system", "content": system_prompt}, *turns] if system_prompt else turns


def fit(engine: Engine, system_prompt: str, turns: list[Message], max_new_tokens: int) -> list[Message]:
    """Leave out the oldest turns until prompt and answer fit into the context, or only the last question is left."""
    while len(turns) > 2:
        if len(engine.encode(with_system(system_prompt, turns))) + max_new_tokens <= engine.context_tokens:
            break
        turns = turns[2:]
    return turns
