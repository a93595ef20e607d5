"""What a row looks like (question and answer, alpaca, sharegpt, ...) and how it becomes messages.

The shape is recognised per file by the columns of its first row, said with its reason, and can be fixed by the recipe
(`dataset_shape`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from phi3_assets.data import Message
from phi3_assets.data.read.conversions import Convert, conversation, pair, preferred, text_in, with_more, written_out_in
from phi3_assets.data.read.markup import markup_of
from phi3_assets.data.read.meaning import BadRow, Unused, refuse_if_meant_otherwise
from phi3_assets.data.read.turns import Turns, is_turn

SHAPES = ("qa", "messages", "sharegpt", "alpaca", "prompt-completion", "preference", "text")
_NEUTRAL = {"id", "idx", "index", "_id", "uuid"}
"""Columns that name a row and say nothing of it."""
_SYSTEM = ("system", "system_prompt", "systemInstruction", "system_instruction")
_COLUMNS: dict[str, list[tuple[str, ...]]] = {
    "messages": [("messages",), ("contents",)],
    "sharegpt": [("conversations",), ("conversation",)],
    "alpaca": [("instruction", "output"), ("instruction", "response")],
    "prompt-completion": [
        *(("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("question", "response")),
        *(("query", "response"), ("input_text", "output_text"), ("input", "output")),
    ],
    "preference": [
        *(("prompt", "chosen"), ("instruction", "chosen"), ("question", "chosen"), ("chosen", "rejected")),
        ("input", "preferred_output"),
    ],
    "text": [("text",)],
}
"""The columns that a shape is recognised by; the first are those that a shape has which the recipe fixes."""


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
    convert: Convert
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
    if shape is None or shape.convert is _refuse_turn:
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

    needed: dict[str, list[tuple[str, ...]]] = {"qa": [(settings.question_column, settings.answer_column)], **_COLUMNS}
    for shape in SHAPES if settings.shape == "auto" else (settings.shape,):
        for columns in needed[shape]:
            found = [named(column) for column in columns]
            if all(found):
                how = f"has the column{'s' * (len(found) > 1)} {' and '.join(map(repr, found))}"
                return _shape(shape, how, found, named, row, settings, unused, turns)
    if settings.shape != "auto":
        # A shape that is fixed is taken for granted: rows that lack a column are quarantined one by one.
        columns_used = [named(column) or column for column in needed[settings.shape][0]]
        return _shape(settings.shape, "", columns_used, named, row, settings, unused, turns)
    conversations = [
        str(name) for name, value in row.items() if isinstance(value, list) and value and is_turn(value[0])
    ]
    if len(conversations) == 1:
        how = f"has turns in the column {conversations[0]!r}"
        return _shape("messages", how, conversations, named, row, settings, unused, turns)
    if is_turn(row):
        return Shape("messages", "each row is one turn", _refuse_turn, frozenset(row), unused, settings.ignored)
    return None


def _refuse_turn(row: Any) -> list[Message]:
    raise BadRow("turn_a_row")


def _shape(
    shape: str,
    reason: str,
    columns: list[str],
    named: Callable[[str], str],
    row: Mapping[Any, Any],
    settings: ShapeSettings,
    unused: Unused,
    turns: Turns,
) -> Shape:
    reason = reason if settings.shape == "auto" else "fixed by dataset_shape"
    if shape == "text" and settings.shape == "auto" and (is_turn(row) or "replies" in row):
        return Shape("messages", "each row is one turn", _refuse_turn, frozenset(row), unused, settings.ignored)
    used = set(columns) | {named(settings.group_column) or settings.group_column}
    system = "" if shape in ("qa", "text") else next((found for name in _SYSTEM if (found := named(name))), "")
    chosen = named("chosen") if shape in ("messages", "sharegpt") else ""
    context = ""
    if shape == "alpaca" or (shape == "preference" and columns[0] == named("instruction")):
        context = named("input") or named("context")
    elif shape == "prompt-completion":
        context = named("context")
    history = named("history") if shape in ("alpaca", "prompt-completion", "preference") else ""
    used |= {name for name in (system, chosen, context, history) if name}
    if chosen or shape == "preference":
        used |= {named("rejected"), named("non_preferred_output")}
    convert: Convert
    markup = markup_of(row.get(columns[0])) if shape in ("text", "prompt-completion") else None
    if markup and settings.shape == "auto":
        shape, reason = "messages", f"{reason}, in which conversations are written out with {markup.name}"
        convert = written_out_in(columns, markup)
        used -= {context}
    elif shape == "text":
        convert = lambda row: [("text", text_in(row, columns[0]))]  # noqa: E731
    elif shape in ("messages", "sharegpt"):
        convert = conversation(turns, columns[0], chosen)
    elif shape == "preference" or isinstance(row.get(columns[0]), list):
        convert = preferred(turns, columns, context)
    else:
        convert = pair(columns[0], columns[1], context)
    if system or history:
        convert = with_more(convert, system, history)
    return Shape(shape, reason, convert, frozenset(used - {""}), unused, settings.ignored)
