"""`phi3 chat --web`: a page on this computer that puts one question to several variants.

Only this computer can reach it, and only its own page can make a model answer: it listens on the loopback address, the
Host header must name that (a foreign name that is made to resolve to it does not: DNS rebinding), and so must the
Origin of what a browser posts. The page loads nothing from elsewhere. Nothing that is asked or answered is logged.
"""

import contextlib
import json
import logging
import socket
import traceback
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import anyio
import uvicorn
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from phi3_assets.chat.engines import INPUTS
from phi3_assets.chat.serving import Event, Find, Models
from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.present import LABELS

LOOPBACK = "127.0.0.1"
STATIC = Path(__file__).parent / "static"
MAX_BODY_BYTES = 1 << 20
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # Also the scripts: after an update the page must not run yesterday's.
    "Cache-Control": "no-store",
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the page starts with.

    Attributes:
        variant: Who answers until more are chosen.
        system_prompt: As in training; "" for none.
        max_new_tokens: Longest answer.
    """

    variant: str
    system_prompt: str
    max_new_tokens: int


class Turn(BaseModel):
    """What one side said."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Question(BaseModel):
    """What the page sends: the conversation with one variant, which ends with what is asked now."""

    model_config = ConfigDict(extra="forbid")

    variant: str
    turns: Annotated[list[Turn], Field(min_length=1)]
    system_prompt: str = ""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _by_turns(self) -> "Question":
        if any(turn.role != ("user", "assistant")[place % 2] for place, turn in enumerate(self.turns)):
            raise ValueError("user and assistant must take turns, the user first")
        if self.turns[-1].role != "user":
            raise ValueError("the last turn must be the user's")
        if self.variant not in INPUTS:
            raise ValueError(f"there is no such variant; choose {', '.join(INPUTS)}")
        return self


def make_app(models: Models, settings: Settings) -> Starlette:
    """The page, what it starts with, and answers."""

    async def setup(request: Request) -> Response:
        problems = [await anyio.to_thread.run_sync(models.problem, variant) for variant in INPUTS]
        variants = [
            {"name": variant, "label": LABELS[variant], "problem": problem}
            for variant, problem in zip(INPUTS, problems, strict=True)
        ]
        return JSONResponse({"variants": variants, **asdict(settings)})

    async def answer(request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return JSONResponse({"error": "Send application/json."}, 415)
        try:
            question = Question.model_validate_json(await request.body())
        except ValidationError as error:
            told = [f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors(include_input=False)]
            return JSONResponse({"error": "; ".join(told)}, 422)
        return EventLines(_answer(models, question))

    return Starlette(
        routes=[
            Route("/setup", setup),
            Route("/answer", answer, methods=["POST"]),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ],
        middleware=[
            Middleware(Guard),
            Middleware(TrustedHostMiddleware, allowed_hosts=[LOOPBACK, "localhost"], www_redirect=False),
            Middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES),
        ],
    )


async def _answer(models: Models, question: Question) -> AsyncGenerator[Event, None]:
    answer = models.answer(
        question.variant,
        [turn.model_dump() for turn in question.turns],
        system_prompt=question.system_prompt,
        max_new_tokens=question.max_new_tokens,
    )
    try:
        async with aclosing(answer) as events:
            async for event in events:
                yield event
    except UserError as error:
        yield {"error": str(error)}
    except Exception as error:
        # The message may hold what was asked, so the page gets it and the log does not.
        stack = "".join(traceback.format_tb(error.__traceback__))
        log.error("%s answering with %s\n%s", type(error).__name__, question.variant, stack)
        yield {"error": f"The model failed: {type(error).__name__}: {error} The terminal shows where."}


class EventLines(StreamingResponse):
    """A JSON object a line, as they come. A reader that leaves stops the model; with Starlette alone that is chance."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        super().__init__(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncGenerator[str, None]:
        async for event in self._events:
            yield json.dumps(event, ensure_ascii=False) + "\n"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, then close."""
        async with aclosing(self._events):
            await super().__call__(scope, receive, send)


class Guard:
    """Refuses what another page posts, and gives every response the headers that keep the page to itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        # A browser gives its page's origin with every POST; programs such as curl give none.
        if headers.get("origin", f"http://{headers.get('host')}") != f"http://{headers.get('host')}":
            await PlainTextResponse("Only the page of this server may ask.", 403)(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)


class Server(uvicorn.Server):
    """Cuts answers off when it is told to end; uvicorn would wait for them."""

    def __init__(self, config: uvicorn.Config, models: Models) -> None:
        super().__init__(config)
        self._models = models

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the answers, then what uvicorn ends."""
        self._models.end()
        await super().shutdown(sockets)


def serve(find: Find, settings: Settings, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        find: Looks a variant's artefacts up, by kind.
        settings: What the page starts with.
        port: TCP port; 0: any free one. The address is printed.

    Raises:
        UserError: The port is taken, or not allowed.
    """
    listener = listen(port)
    print(f"http://{LOOPBACK}:{listener.getsockname()[1]} answers on this computer only. Ctrl-C ends it.", flush=True)
    models = Models(find)
    config = uvicorn.Config(
        make_app(models, settings),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="off",
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands it on when it has ended
        Server(config, models).run(sockets=[listener])


def listen(port: int) -> socket.socket:
    """A listening socket on the loopback address.

    Raises:
        UserError: See `serve`.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or "ports are numbers from 0 to 65535"
        raise UserError(f"Cannot listen on {LOOPBACK}:{port}: {reason}. Choose another --port, or 0 for any.") from None
    return listener
