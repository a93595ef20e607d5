"""What a row looks like (question and answer, alpaca, sharegpt, ...) and how it becomes messages.

The shape is recognised per file by the columns of its first row, said with its reason, and can be fixed by the recipe
(`dataset_shape`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phi3_assets.data import Message
from phi3_assets.data.read.meaning import BadRow, Unused, is_empty, refuse_if_meant_otherwise
from phi3_assets.data.read.turns import Turns, is_turn
from phi3_assets.data.read.values import text_of

SHAPES = ("qa", "messages", "sharegpt", "alpaca", "prompt-completion", "preference", "text")
_NEUTRAL = {"id", "idx", "index", "_id", "uuid"}
"""Columns that name a row and say nothing of it."""
_SYSTEM = ("system", "system_prompt")


@dataclass(frozen=True)
class ShapeSettings:
    """What the recipe says of rows; see there.

    Attributes:
        question_column: Column of the question in the shape qa.
        answer_column: Column of the answer in the shape qa.
        shape: One of `SHAPES`, or "auto".
        group_column: Its column is used, whatever the shape.
        roles: Further names of roles, in small letters.
        ignored: Columns and keys that may be left out, in small letters.
    """

    question_column: str
    answer_column: str
    shape: str = "auto"
    group_column: str = ""
    roles: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Shape:
    """How the rows of one file become messages.

    Attributes:
        name: One of `SHAPES`.
        reason: Why this shape, for the reader of the report.
        convert: From a row's value to its messages, their contents stripped; raises `BadRow`.
        inside: The column of which the value is the row; "": the row is.
        used: Columns that something is made of.
        unused: Counts the others.
        ignored: Columns that may be left out, in small letters.
    """

    name: str
    reason: str
    convert: Callable[[Any], list[Message]]
    used: frozenset[str]
    unused: Unused
    ignored: frozenset[str] = frozenset()
    inside: str = ""

    def messages(self, row: Any) -> list[Message]:
        """The messages of a row.

        Raises:
            BadRow: It has none.
        """
        if self.inside:
            row = row.get(self.inside) if isinstance(row, Mapping) else None
        if isinstance(row, Mapping) and row.keys() != self.used:
            if self.name != "text":  # a passage is no answer, whatever its label
                refuse_if_meant_otherwise(row, self.used, self.ignored)
            self.unused.count(row, self.used)
        return self.convert(row)


def detect_shape(row: Any, settings: ShapeSettings) -> Shape | None:
    """Recognise a file by its first row; None if it has no known shape.

    Column names match exactly, or else without regard to case and outer spaces.
    """
    unused = Unused(settings.ignored | _NEUTRAL)
    turns = Turns(settings.roles, settings.ignored, unused)
    if isinstance(row, list) and row and is_turn(row[0]) and settings.shape in ("auto", "messages", "sharegpt"):
        columns = frozenset(row[0])
        return Shape("messages", "each row is a list of turns", lambda r: turns.messages(r, "row"), columns, unused)
    if not isinstance(row, Mapping):
        return None
    shape = _by_columns(row, settings, unused, turns)
    if shape is None and settings.shape == "auto":
        # Such as the body of a request, or a row with its metadata around it.
        within = [(str(name), value) for name, value in row.items() if isinstance(value, Mapping)]
        found = [(name, inner) for name, value in within if (inner := _by_columns(value, settings, unused, turns))]
        if len(found) == 1:
            name, inner = found[0]
            reason = f"in the column {name!r}, {inner.reason}"
            return Shape(inner.name, reason, inner.convert, inner.used, unused, settings.ignored, inside=name)
    return shape


def rank(value: Any, settings: ShapeSettings) -> int:
    """How much a value looks like a row: see `rows.Rank`."""
    shape = detect_shape(value, settings)
    if shape is None:
        return 0
    try:
        shape.messages(value)
    except BadRow:
        return 1
    return 2


def _by_columns(row: Mapping[Any, Any], settings: ShapeSettings, unused: Unused, turns: Turns) -> Shape | None:
    names = {str(name).strip().casefold(): str(name) for name in row}

    def named(wanted: str) -> str:
        return wanted if wanted in row else names.get(wanted.strip().casefold(), "")

    needed: dict[str, list[tuple[str, ...]]] = {
        "qa": [(settings.question_column, settings.answer_column)],
        "messages": [("messages",)],
        "sharegpt": [("conversations",), ("conversation",)],
        "alpaca": [("instruction", "output"), ("instruction", "response")],
        "prompt-completion": [("prompt", "completion")],
        "preference": [("prompt", "chosen"), ("instruction", "chosen"), ("question", "chosen"), ("chosen", "rejected")],
        "text": [("text",)],
    }
    for shape in SHAPES if settings.shape == "auto" else (settings.shape,):
        for columns in needed[shape]:
            found = [named(column) for column in columns]
            if not all(found) and (settings.shape == "auto" or columns is not needed[shape][-1]):
                continue
            # A shape that is fixed is taken for granted: rows that lack a column are quarantined one by one.
            reason = "fixed by dataset_shape"
            if settings.shape == "auto":
                reason = f"has the column{'s' * (len(found) > 1)} {' and '.join(map(repr, found))}"
            columns_used = [name or fallback for name, fallback in zip(found, columns, strict=True)]
            return _shape(shape, reason, columns_used, named, settings, unused, turns)
    return None


def _shape(
    shape: str,
    reason: str,
    columns: list[str],
    named: Callable[[str], str],
    settings: ShapeSettings,
    unused: Unused,
    turns: Turns,
) -> Shape:
    used = set(columns) | {named(settings.group_column) or settings.group_column}
    system = "" if shape in ("qa", "text") else next((found for name in _SYSTEM if (found := named(name))), "")
    chosen = named("chosen") if shape in ("messages", "sharegpt") else ""
    context = ""
    if shape == "alpaca" or (shape == "preference" and columns[0] == named("instruction")):
        context = named("input") or named("context")
    history = named("history") if shape in ("alpaca", "prompt-completion", "preference") else ""
    used |= {name for name in (system, chosen, context, history) if name}
    if chosen or shape == "preference":
        used |= {named("rejected")}
    convert: Callable[[Any], list[Message]]
    if shape == "text":
        convert = lambda row: [("text", _text(row, columns[0]))]  # noqa: E731
    elif shape in ("messages", "sharegpt"):
        convert = _conversation(turns, columns[0], chosen)
    elif shape == "preference":
        convert = _preferred(turns, columns, context)
    else:
        convert = _pair(columns[0], columns[1], context)
    if system or history:
        convert = _with_more(convert, system, history)
    return Shape(shape, reason, convert, frozenset(used - {""}), unused, settings.ignored)


def _text(row: Any, name: str, empty_ok: bool = False) -> str:
    try:
        value = row[name]
    except KeyError:
        raise BadRow("missing_column", name) from None
    except TypeError:
        raise BadRow("not_an_object") from None
    return text_of(value, empty_ok)


def _pair(question: str, answer: str, context: str) -> Callable[[Any], list[Message]]:
    if not context:
        return lambda row: [("user", _text(row, question)), ("assistant", _text(row, answer))]
    return lambda row: [("user", _question(row, question, context)), ("assistant", _text(row, answer))]


def _question(row: Any, question: str, context: str) -> str:
    asked = _text(row, question)
    extra = _text(row, context, empty_ok=True) if context and context in row else ""
    return f"{asked}\n\n{extra}" if extra else asked


def _conversation(turns: Turns, column: str, chosen: str) -> Callable[[Any], list[Message]]:
    def convert(row: Any) -> list[Message]:
        if isinstance(row, list):
            return turns.messages(row, column)
        if not isinstance(row, Mapping):
            raise BadRow("not_an_object")
        value = row.get(column)
        if chosen and isinstance(value, list) and not is_empty(row.get(chosen)):
            answer = row[chosen]
            value = [*value, *(answer if isinstance(answer, list) else [answer])]
        return turns.messages(value, column)

    return convert


def _preferred(turns: Turns, columns: list[str], context: str) -> Callable[[Any], list[Message]]:
    """The chosen answer; the rejected one is none."""
    question, chosen = columns
    if chosen.strip().casefold() == "rejected":  # whole conversations, and nothing beside them
        question, chosen = "", columns[0]

    def convert(row: Any) -> list[Message]:
        if not isinstance(row, Mapping):
            raise BadRow("not_an_object")
        answer, asked = row.get(chosen), row.get(question)
        if isinstance(asked, list):
            return turns.messages([*asked, *(answer if isinstance(answer, list) else [answer])], question)
        if isinstance(answer, list):
            if len(answer) > 1 or not question:
                return turns.messages(answer, chosen)
            return turns.messages([{"role": "user", "content": _question(row, question, context)}, *answer], chosen)
        if isinstance(answer, Mapping):
            return turns.messages([{"role": "user", "content": _question(row, question, context)}, answer], chosen)
        return [("user", _question(row, question, context)), ("assistant", _text(row, chosen))]

    return convert


def _with_more(convert: Callable[[Any], list[Message]], system: str, history: str) -> Callable[[Any], list[Message]]:
    """Messages with the system message and the earlier turns that stand in columns of their own."""

    def whole(row: Any) -> list[Message]:
        messages = convert(row)
        if not isinstance(row, Mapping):
            return messages
        if history and not is_empty(row.get(history)):
            messages = _earlier(row[history]) + messages
        said = _text(row, system, empty_ok=True) if system and system in row else ""
        if not said or messages[0] == ("system", said):
            return messages
        if messages[0][0] == "system":
            raise BadRow("several_system_messages", system)
        return [("system", said), *messages]

    return whole


def _earlier(history: Any) -> list[Message]:
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise BadRow("odd_history")
    return [
        message
        for question, answer in history
        for message in (("user", text_of(question)), ("assistant", text_of(answer)))
    ]
