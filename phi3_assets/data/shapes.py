"""What a row looks like (question and answer, alpaca, sharegpt, ...) and how it becomes messages.

The shape is detected per file from its first row, said with its reason, and can be fixed by the recipe.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Message = tuple[str, str]
"""Role (system, user or assistant) and content."""

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}


class BadRowError(Exception):
    """A row that has no messages; the argument is the reason code."""


@dataclass(frozen=True)
class Shape:
    """How the rows of one file become messages.

    Attributes:
        name: One of `SHAPES`.
        reason: Why this shape, for the reader of the report.
        convert: From a row's value to its messages; raises `BadRowError`.
    """

    name: str
    reason: str
    convert: Callable[[Any], list[Message]]


def detect_shape(row: Any, question_column: str, answer_column: str) -> Shape | None:
    """Recognise a file by its first row; None if it has no known shape."""
    if not isinstance(row, Mapping):
        return None
    names = {str(name).strip().casefold(): str(name) for name in row}

    def column(wanted: str) -> str | None:
        return wanted if wanted in row else names.get(wanted.strip().casefold())

    question, answer = column(question_column), column(answer_column)
    if question and answer:
        return Shape("qa", f"has the columns {question!r} and {answer!r}", _pair(question, answer))
    if column("messages"):
        return Shape("messages", "has the column 'messages'", _turns(column("messages"), "role", "content"))
    if column("conversations"):
        return Shape("sharegpt", "has the column 'conversations'", _turns(column("conversations"), "from", "value"))
    if column("instruction") and column("output"):
        return Shape(
            "alpaca",
            "has the columns 'instruction' and 'output'",
            _alpaca(column("instruction"), column("input"), column("output")),
        )
    if column("prompt") and column("completion"):
        return Shape(
            "prompt-completion",
            "has the columns 'prompt' and 'completion'",
            _pair(str(column("prompt")), str(column("completion"))),
        )
    return None


def _text(row: Any, name: str, empty_ok: bool = False) -> str:
    if not isinstance(row, Mapping):
        raise BadRowError("not_an_object")
    if name not in row:
        raise BadRowError("missing_column")
    value = row[name]
    if isinstance(value, bool | int | float):
        value = str(value)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise BadRowError("not_text")
    value = value.strip()
    if not value and not empty_ok:
        raise BadRowError("empty_text")
    return value


def _pair(question: str, answer: str) -> Callable[[Any], list[Message]]:
    return lambda row: [("user", _text(row, question)), ("assistant", _text(row, answer))]


def _alpaca(instruction: str | None, context: str | None, output: str | None) -> Callable[[Any], list[Message]]:
    def convert(row: Any) -> list[Message]:
        question = _text(row, str(instruction))
        extra = _text(row, context, empty_ok=True) if context and context in row else ""
        return [("user", f"{question}\n\n{extra}" if extra else question), ("assistant", _text(row, str(output)))]

    return convert


def _turns(column: str | None, role_key: str, content_key: str) -> Callable[[Any], list[Message]]:
    def convert(row: Any) -> list[Message]:
        if not isinstance(row, Mapping):
            raise BadRowError("not_an_object")
        turns = row.get(str(column))
        if not isinstance(turns, list) or not turns:
            raise BadRowError("missing_column" if turns is None else "no_turns")
        messages: list[Message] = []
        for turn in turns:
            if not isinstance(turn, Mapping):
                raise BadRowError("not_an_object")
            role = _ROLES.get(str(turn.get(role_key)))
            if role is None:
                raise BadRowError("unknown_role")
            messages.append((role, _text(turn, content_key)))
        _check_order(messages)
        return messages

    return convert


def _check_order(messages: list[Message]) -> None:
    """At most one system message, first; then user and assistant in turn; the assistant last."""
    roles = [role for role, _ in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    if not turns or len(turns) % 2 or any(role != ("user", "assistant")[i % 2] for i, role in enumerate(turns)):
        raise BadRowError("wrong_turn_order")
