"""The models of a home, for several askers at once: opened when first asked, one answer at a time, closed for room.

Lives on one event loop; models are opened and run in threads. An answer is a stream of small events, and whoever reads
it stops the model by closing it: at the latest after the token in the works, the model is free for the next asker.
"""

import asyncio
import gc
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import psutil

from phi3_assets.chat import Engine, Message, Reply, fit, stream, with_system
from phi3_assets.chat.engines import INPUTS, check_variant, open_engine
from phi3_assets.core.errors import UserError

Event = dict[str, Any]
"""One of {"state": waiting | loading | answering, ...}, {"text": ..., figures}, {"stop": end | limit | context}."""
LATEST = "latest"


@dataclass(frozen=True)
class Which:
    """Whose models are asked.

    Attributes:
        product: "": the only one of the home.
        release: Identity of a release or how it begins; `LATEST`: what was made last; "": the champion, and where there
            is none, what was made last.
    """

    product: str = ""
    release: str = ""


Find = Callable[[Which, str], Mapping[str, Path]]
"""The artefact directories of a variant in this home, by kind; those that are not there are left out."""

# What an opened model takes, by the size of its files: twice for weights in 16 bits that a CPU computes in 32, and as
# much again for buffers where they are in 32 or in 4 (smol-cpu: 0.54 GB take 1.14, 0.12 GB take 0.27).
BYTES_PER_FILE_BYTE = 2


@dataclass
class Slot:
    """A variant's place.

    Attributes:
        lock: Held while it answers.
        engine: The model, if it is open.
        directories: What it was opened from; a retrained model is another one.
        used_at: When it was asked last, `time.monotonic`.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    engine: Engine | None = None
    directories: Mapping[str, Path] = field(default_factory=dict)
    used_at: float = 0.0


class Models:
    """The variants of a home.

    Args:
        find: Looks a variant's artefacts up. Asked anew for every question, so a model that was retrained meanwhile
            answers from the next question on.
        free_bytes: Memory to be had for a variant; another one in tests.
    """

    def __init__(self, find: Find, free_bytes: Callable[[str], int] | None = None) -> None:
        self._find = find
        self._free_bytes = free_bytes or free_memory_bytes
        self._slots = {variant: Slot() for variant in INPUTS}
        # Two that are opened at once would both count on the same free memory.
        self._opening = asyncio.Lock()
        self._ending = threading.Event()

    def end(self) -> None:
        """Cut all answers off, and give no more."""
        self._ending.set()

    def problem(self, which: Which, variant: str) -> str:
        """Why a variant cannot be asked, and the way out; "" if it can."""
        try:
            check_variant(variant, self._find(which, variant))
        except UserError as error:
            return str(error)
        return ""

    def opened(self) -> list[str]:
        """The variants that are in memory."""
        return [variant for variant, slot in self._slots.items() if slot.engine is not None]

    async def answer(
        self, which: Which, variant: str, turns: list[Message], *, system_prompt: str, max_new_tokens: int
    ) -> AsyncGenerator[Event, None]:
        """Answer the last of the turns; close the generator to stop the model.

        Args:
            which: Whose model. A variant of one release at a time is in memory.
            variant: base, adapter, merged or int4.
            turns: User and assistant by turns, the last one the user's. The oldest are left out if all do not fit.
            system_prompt: As in training; "" for none.
            max_new_tokens: Longest answer.

        Raises:
            UserError: The variant is not in this home, does not fit into memory, or the question not into its context.
        """
        slot = self._slots[variant]
        if slot.lock.locked():
            yield {"state": "waiting"}
        async with slot.lock:
            directories = await asyncio.to_thread(self._find, which, variant)
            if slot.engine is None or slot.directories != directories:
                check_variant(variant, directories)
                yield {"state": "loading"}
                async with self._opening:
                    opening = asyncio.ensure_future(asyncio.to_thread(self._open, variant, directories))
                    await _ended(opening)
                    opening.result()
            assert slot.engine is not None
            slot.used_at = time.monotonic()
            async with aclosing(self._generate(slot.engine, turns, system_prompt, max_new_tokens)) as events:
                async for event in events:
                    yield event

    def _open(self, variant: str, directories: Mapping[str, Path]) -> None:
        """Open a variant, and close idle ones, longest unused first, until there is room for it."""
        slot = self._slots[variant]
        slot.engine = None
        gc.collect()
        files = (path for name in INPUTS[variant] for path in directories[name].rglob("*") if path.is_file())
        needed = BYTES_PER_FILE_BYTE * sum(path.stat().st_size for path in files)
        idle = [other for other in self._slots.values() if other.engine is not None and not other.lock.locked()]
        idle.sort(key=lambda other: -other.used_at)
        while (free := self._free_bytes(variant)) < needed:
            if not idle:
                raise UserError(
                    f"Variant {variant} takes about {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free. "
                    "End other programs, wait until other answers are done, or ask int4, which takes least."
                )
            idle.pop().engine = None
            gc.collect()
        slot.engine, slot.directories = open_engine(variant, directories), directories

    async def _generate(
        self, engine: Engine, turns: list[Message], system_prompt: str, max_new_tokens: int
    ) -> AsyncGenerator[Event, None]:
        """Run the model in a thread that waits for nobody, so that its speed is the model's and not the reader's."""
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Event | None] = asyncio.Queue()
        stopping = threading.Event()

        def tell(event: Event | None) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        def work() -> None:
            reply = Reply()
            try:
                kept = fit(engine, system_prompt, turns, max_new_tokens)
                tell({"state": "answering", "forgotten": (len(turns) - len(kept)) // 2})
                for piece in stream(engine, with_system(system_prompt, kept), max_new_tokens, reply):
                    if stopping.is_set() or self._ending.is_set():
                        return
                    tell({"text": piece, **_figures(reply)})
                stop = "end" if reply.stopped else "context" if reply.context_full else "limit"
                tell({"stop": stop, **_figures(reply)})
            finally:
                tell(None)

        working = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            while (event := await events.get()) is not None:
                yield event
            await working  # raises what went wrong
        finally:
            stopping.set()
            await _ended(working)


def free_memory_bytes(variant: str) -> int:
    """Memory to be had where a variant would run: on the GPU if there is one, except for int4."""
    if variant != "int4":
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            return torch.cuda.mem_get_info()[0]
    return psutil.virtual_memory().available


async def _ended(working: asyncio.Future[None]) -> None:
    """Wait for a thread's end also when the reader has gone: nobody else may have its model before."""
    with anyio.CancelScope(shield=True):
        await asyncio.wait([working])


def _figures(reply: Reply) -> Event:
    return {
        "tokens": reply.tokens,
        "first_token_s": round(reply.first_token_s, 3),
        "tokens_per_s": round(reply.tokens_per_s, 1),
    }
