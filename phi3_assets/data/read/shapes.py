"""What a row looks like (question and answer, alpaca, sharegpt, ...) and how it becomes messages.

The shape is recognised per file by the columns of its first row, said with its reason, and can be fixed by the recipe
(`dataset_shape`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from phi3_assets.data import Message

SHAPES = ("qa", "messages", "sharegpt", "alpaca", "prompt-completion", "text")
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


class BadRow(Exception):
    """A row that has no messages; the argument is the reason code."""


@dataclass(frozen=True)
class Shape:
    """How the rows of one file become messages.

    Attributes:
        name: One of `SHAPES`.
        reason: Why this shape, for the reader of the report.
        convert: From a row's value to its messages, their contents stripped; raises `BadRow`.
    """

    name: str
    reason: str
    convert: Callable[[Any], list[Message]]


def detect_shape(row: Any, question_column: str, answer_column: str, wanted: str = "auto") -> Shape | None:
    """Recognise a file by its first row; None if it has no known shape.

    Args:
        row: The first row's value. Column names match exactly, or else without regard to case and outer spaces.
        question_column: Column of the question in the shape qa.
        answer_column: Column of the answer in the shape qa.
        wanted: A shape that is taken for granted, or "auto".
    """
    if not isinstance(row, Mapping):
        return None
    names = {str(name).strip().casefold(): str(name) for name in row}
    needed = {
        "qa": (question_column, answer_column),
        "messages": ("messages",),
        "sharegpt": ("conversations",),
        "alpaca": ("instruction", "output"),
        "prompt-completion": ("prompt", "completion"),
        "text": ("text",),
    }
    for shape in SHAPES if wanted == "auto" else (wanted,):
        found = [name if name in row else names.get(name.strip().casefold(), "") for name in needed[shape]]
        if wanted != "auto":
            # Rows that lack a column are quarantined one by one.
            columns = [name or fallback for name, fallback in zip(found, needed[shape], strict=True)]
            return Shape(shape, "fixed by dataset_shape", _converter(shape, columns, names))
        if all(found):
            plural = "s" if len(found) > 1 else ""
            reason = f"has the column{plural} {' and '.join(map(repr, found))}"
            return Shape(shape, reason, _converter(shape, found, names))
    return None


def _converter(shape: str, columns: list[str], names: Mapping[str, str]) -> Callable[[Any], list[Message]]:
    if shape in ("qa", "prompt-completion"):
        return _pair(columns[0], columns[1])
    if shape == "alpaca":
        return _alpaca(columns[0], columns[1], context=names.get("input"))
    if shape == "messages":
        return _turns(columns[0], role_key="role", content_key="content")
    if shape == "sharegpt":
        return _turns(columns[0], role_key="from", content_key="value")
    return lambda row: [("text", _text(row, columns[0]))]


def _text(row: Any, name: str, empty_ok: bool = False) -> str:
    """The stripped text of a field; numbers and booleans are text, null is empty."""
    try:
        value = row[name]
    except KeyError:
        raise BadRow("missing_column") from None
    except TypeError:
        raise BadRow("not_an_object") from None
    if value is None:
        value = ""
    elif not isinstance(value, str):
        if not isinstance(value, bool | int | float | Decimal):
            raise BadRow("not_text")
        value = str(float(value)) if isinstance(value, Decimal) else str(value)
    value = value.strip()
    if not value and not empty_ok:
        raise BadRow("empty_text")
    return value


def _pair(question: str, answer: str) -> Callable[[Any], list[Message]]:
    return lambda row: [("user", _text(row, question)), ("assistant", _text(row, answer))]


def _alpaca(instruction: str, output: str, context: str | None) -> Callable[[Any], list[Message]]:
    def convert(row: Any) -> list[Message]:
        question, answer = _text(row, instruction), _text(row, output)
        extra = _text(row, context, empty_ok=True) if context and context in row else ""
        return [("user", f"{question}\n\n{extra}" if extra else question), ("assistant", answer)]

    return convert


def _turns(column: str, role_key: str, content_key: str) -> Callable[[Any], list[Message]]:
    def convert(row: Any) -> list[Message]:
        if not isinstance(row, Mapping):
            raise BadRow("not_an_object")
        turns = row.get(column)
        if not isinstance(turns, list):
            raise BadRow("missing_column" if turns is None else "not_text")
        messages: list[Message] = []
        for turn in turns:
            if not isinstance(turn, Mapping):
                raise BadRow("not_an_object")
            role = _ROLES.get(str(turn.get(role_key)))
            if role is None:
                raise BadRow("unknown_role")
            messages.append((role, _text(turn, content_key)))
        if not _in_order([role for role, _ in messages]):
            raise BadRow("wrong_turn_order")
        return messages

    return convert


def _in_order(roles: list[str]) -> bool:
    """At most one system message, first; then user and assistant in turn; the assistant last."""
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return (
        len(turns) >= 2
        and len(turns) % 2 == 0
        and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(turns))
    )
