"""The chat page: puts one question to several variants of a release, side by side.

`phi3_assets.web` serves it, and says who may reach it. The page loads nothing from elsewhere. Nothing that is asked or
answered is logged.
"""

import json
import logging
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from phi3_assets.chat.engines import INPUTS
from phi3_assets.chat.serving import LATEST, Event, Models, Which
from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.present import LABELS

STATIC = Path(__file__).parent / "static"
log = logging.getLogger(__name__)

Product = Annotated[str, Field(pattern=r"^[a-z0-9-]{0,63}$")]
# No folder of a bundle, as on the command line: a page must not make the server look at paths.
Release = Annotated[str, Field(pattern=rf"^([0-9a-f]{{1,64}}|{LATEST})?$")]
Describe = Callable[[Which], tuple[str, str]]
"""Who answers, in a few words, and the system prompt that it was trained with."""


@dataclass(frozen=True)
class Settings:
    """What the page starts with.

    Attributes:
        variant: Who answers until more are chosen.
        system_prompt: None: the one that the model was trained with; "" for none.
        max_new_tokens: Longest answer.
        which: Whose models are asked where the page's address names none.
    """

    variant: str = "int4"
    system_prompt: str | None = None
    max_new_tokens: int = 256
    which: Which = field(default_factory=Which)


class Turn(BaseModel):
    """What one side said."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Asked(BaseModel):
    """Whose models the page is about, as its address says it."""

    model_config = ConfigDict(extra="forbid")

    product: Product = ""
    release: Release = ""

    def which(self, otherwise: Which) -> Which:
        """What is named here, and of what is not, the other."""
        return Which(self.product, self.release) if self.product or self.release else otherwise


class Question(Asked):
    """What the page sends: the conversation with one variant, which ends with what is asked now."""

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


def make_chat(models: Models, describe: Describe, settings: Settings) -> Starlette:
    """The page, what it starts with, and answers."""

    def setup(request: Request) -> Response:
        try:
            which = Asked.model_validate(dict(request.query_params)).which(settings.which)
            told, trained_with = describe(which)
        except ValidationError as error:
            return _refused(error)
        except UserError as error:
            return JSONResponse({"error": str(error)}, 404)
        variants = [
            {"name": variant, "label": LABELS[variant], "problem": models.problem(which, variant)} for variant in INPUTS
        ]
        return JSONResponse(
            {
                "told": told,
                "which": asdict(which),
                "variants": variants,
                "variant": settings.variant,
                "system_prompt": trained_with if settings.system_prompt is None else settings.system_prompt,
                "max_new_tokens": settings.max_new_tokens,
            }
        )

    async def answer(request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return JSONResponse({"error": "Send application/json."}, 415)
        try:
            question = Question.model_validate_json(await request.body())
        except ValidationError as error:
            return _refused(error)
        return EventLines(_answer(models, question.which(settings.which), question))

    return Starlette(
        routes=[
            Route("/setup", setup),
            Route("/answer", answer, methods=["POST"]),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ]
    )


def _refused(error: ValidationError) -> Response:
    told = [f"{'.'.join(map(str, line['loc']))}: {line['msg']}" for line in error.errors(include_input=False)]
    return JSONResponse({"error": "; ".join(told)}, 422)


async def _answer(models: Models, which: Which, question: Question) -> AsyncGenerator[Event, None]:
    answer = models.answer(
        which,
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
