"""From a row to its messages, by the columns that its shape is made of."""

from collections.abc import Callable, Mapping
from typing import Any

from phi3_assets.data import Message
from phi3_assets.data.read.markup import Markup, markup_of, written_out
from phi3_assets.data.read.meaning import BadRow, is_empty, refuse_if_meant_otherwise
from phi3_assets.data.read.turns import Turns, content_of, in_order
from phi3_assets.data.read.values import text_of

Convert = Callable[[Any], list[Message]]
"""From a row's value to its messages, their contents stripped; raises `BadRow`."""


def text_in(row: Any, name: str, empty_ok: bool = False) -> str:
    """The text of a column.

    Raises:
        BadRow: It has none.
    """
    try:
        value = row[name]
    except KeyError:
        raise BadRow("missing_column", name) from None
    except TypeError:
        raise BadRow("not_an_object") from None
    return text_of(value, empty_ok)


def pair(question: str, answer: str, context: str) -> Convert:
    """A question, with what it is about if there is such a column, and its answer."""
    if not context:
        return lambda row: [("user", text_in(row, question)), ("assistant", text_in(row, answer))]
    return lambda row: [("user", _question(row, question, context)), ("assistant", text_in(row, answer))]


def _question(row: Any, question: str, context: str) -> str:
    asked = text_in(row, question)
    extra = text_in(row, context, empty_ok=True) if context and context in row else ""
    return f"{asked}\n\n{extra}" if extra else asked


def written_out_in(columns: list[str], markup: Markup) -> Convert:
    """Conversations in one column, or up to the last answer in one and that in another."""

    def convert(row: Any) -> list[Message]:
        answer = text_in(row, columns[1]) if len(columns) > 1 else None
        return in_order(written_out(text_in(row, columns[0]), markup, columns[0], answer))

    return convert


def conversation(turns: Turns, column: str, chosen: str) -> Convert:
    """A list of turns, with the chosen answer behind it if there is such a column."""

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


def preferred(turns: Turns, columns: list[str], context: str) -> Convert:
    """The chosen answer, the rejected one is none; or the only one, where question and answer are lists of turns."""
    question, chosen = columns
    if chosen.strip().casefold() == "rejected":  # whole conversations, and nothing beside them
        question, chosen = "", columns[0]

    def convert(row: Any) -> list[Message]:
        if not isinstance(row, Mapping):
            raise BadRow("not_an_object")
        answer, asked = row.get(chosen), row.get(question)
        if isinstance(asked, Mapping):  # the body of a request
            refuse_if_meant_otherwise(asked, {"messages"}, turns.ignored)
            asked = asked.get("messages")
        if not question and isinstance(answer, str):
            if not (markup := markup_of(answer)):
                raise BadRow("no_turns", chosen)
            return in_order(written_out(answer, markup, chosen))
        if isinstance(asked, list):
            return turns.messages([*asked, *(answer if isinstance(answer, list) else [answer])], question)
        if isinstance(answer, list):
            if len(answer) > 1 or not question:
                return turns.messages(answer, chosen)
            return turns.messages([{"role": "user", "content": _question(row, question, context)}, *answer], chosen)
        if isinstance(answer, Mapping):
            return turns.messages([{"role": "user", "content": _question(row, question, context)}, answer], chosen)
        return [("user", _question(row, question, context)), ("assistant", text_in(row, chosen))]

    return convert


def with_more(convert: Convert, system: str, history: str) -> Convert:
    """Messages with the system message and the earlier turns that stand in columns of their own."""

    def whole(row: Any) -> list[Message]:
        messages = convert(row)
        if not isinstance(row, Mapping):
            return messages
        if history and not is_empty(row.get(history)):
            messages = _earlier(row[history]) + messages
        said = content_of(row[system], empty_ok=True) if system and system in row else ""
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
