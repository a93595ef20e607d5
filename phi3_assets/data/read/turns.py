"""Conversations as lists of turns, under all the names that roles and contents go by."""

import ast
from collections.abc import Mapping, Set
from typing import Any

from phi3_assets.data import NOT_LEARNT, Message
from phi3_assets.data.read.json_values import loads
from phi3_assets.data.read.meaning import REFUSED, BadRow, Unused, is_empty
from phi3_assets.data.read.values import text_of

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "ai", "model", "bot", "chatgpt", "chatbot"), "assistant"),
}
_TOOLS = {"tool", "function", "observation", "function_call", "tool_call", "tool_response", "ipython"}
_ROLE_KEYS = ("role", "from", "author", "speaker")
_CONTENT_KEYS = ("content", "value", "text", "parts")
_WEIGHT_KEYS = ("weight", "loss", "train", "training", "train_on_turn")
_USED_OR_REFUSED = {*_WEIGHT_KEYS, *REFUSED}


def is_turn(value: Any) -> bool:
    """Whether a value looks like one turn of a conversation."""
    return (
        isinstance(value, Mapping)
        and any(isinstance(value.get(key), str) for key in _ROLE_KEYS)
        and any(key in value for key in _CONTENT_KEYS)
    )


class Turns:
    """Turns to messages.

    Args:
        roles: Further names of roles, in small letters, by the recipe.
        ignored: Keys that may be left out, in small letters.
        unused: Counts those of which nothing is made.
    """

    def __init__(self, roles: Mapping[str, str], ignored: Set[str], unused: Unused) -> None:
        self._roles = {**_ROLES, **roles}
        self.ignored = ignored
        self._unused = unused

    def messages(self, value: Any, column: str) -> list[Message]:
        """The messages of a conversation, in the order that they must have, the last one learnt.

        Args:
            value: A list of turns, also as JSON text, or in an object or a list of its own.
            column: Where it stands, for the counts.

        Raises:
            BadRow: It is none, or not in order.
        """
        messages = [self._of_turn(turn, column) for turn in _turns(value, column)]
        return in_order([message for message in messages if message != ("system", "")])

    def _of_turn(self, turn: Any, column: str) -> Message:
        if type(turn) is dict and len(turn) == 2:  # most turns of most files; what follows comes to the same
            name, content = turn.get("role"), turn.get("content")
            if type(name) is str and type(content) is str and name in self._roles and (content := content.strip()):
                return self._roles[name], content
        if not isinstance(turn, Mapping):
            raise BadRow("not_an_object")
        speaks = next((key for key in _ROLE_KEYS if turn.get(key) is not None), "")
        given = [key for key in _CONTENT_KEYS if key in turn]
        key = next((key for key in given if not is_empty(turn[key])), given[0] if given else "")
        if len(turn) > 2:
            for other in turn.keys() - {speaks, key}:
                name = str(other).strip().casefold()
                if name in REFUSED and name not in self.ignored and not is_empty(turn[other]):
                    raise BadRow(REFUSED[name], str(other))
            self._unused.count(turn, _USED_OR_REFUSED | {speaks, key}, f"{column}[].")
        name = str(turn[speaks]) if speaks else ""
        role = self._roles.get(name) or self._roles.get(name.strip().casefold())
        if role is None:
            raise BadRow("tool_use" if name.strip().casefold() in _TOOLS else "unknown_role", name or "no role")
        if not key:
            raise BadRow("missing_column", "content")
        content = content_of(turn[key], empty_ok=role == "system")
        if role == "assistant" and not _is_learnt(turn):
            role = NOT_LEARNT
        return role, content


def in_order(messages: list[Message]) -> list[Message]:
    """The messages up to the last answer that is learnt.

    Raises:
        BadRow: They are not in the order that they must have, or none is learnt.
    """
    while messages and messages[-1][0] == NOT_LEARNT:
        del messages[-2:]  # what comes after the last answer that is learnt teaches nothing
        if not any(role == "assistant" for role, _ in messages):
            raise BadRow("nothing_to_learn")
    if not _in_order([role for role, _ in messages]):
        raise BadRow("wrong_turn_order", " ".join(role for role, _ in messages[:6]))
    return messages


def _turns(value: Any, column: str) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        value = _written(value)
    if isinstance(value, Mapping):
        value = _from_columns(value) or value.get(column, value.get("messages"))
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list):
        raise BadRow("missing_column" if value is None else "not_text", column)
    return value


def _written(text: str) -> Any:
    """A list of turns in a field of a table: as JSON, or as Python writes it, which is what a table of pandas gets.

    Raises:
        BadRow: It is neither.
    """
    try:
        return loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise BadRow("no_turns") from None


def _from_columns(value: Mapping[str, Any]) -> list[Any] | None:
    """Turns of which roles and contents are lists side by side, as `datasets` keeps a sequence of objects."""
    speaks = next((key for key in _ROLE_KEYS if isinstance(value.get(key), list)), None)
    if speaks is None or any(not isinstance(each, list) or len(each) != len(value[speaks]) for each in value.values()):
        return None
    return [dict(zip(value, turn, strict=True)) for turn in zip(*value.values(), strict=True)]


def content_of(value: Any, empty_ok: bool = False) -> str:
    """A text, or one in parts; a part that is no text changes what the others mean.

    Raises:
        BadRow: It is none.
    """
    if isinstance(value, Mapping):  # as Gemini has its system message
        value = value.get("parts", [value])
    if not isinstance(value, list):
        return text_of(value, empty_ok)
    return text_of("\n".join(map(_part, value)), empty_ok)


def _part(part: Any) -> str:
    if isinstance(part, str):
        return text_of(part)
    if not isinstance(part, Mapping):
        raise BadRow("not_text")
    kind = part.get("type", "text")
    if kind not in ("text", "input_text", "output_text") or "text" not in part:
        raise BadRow("not_only_text", str(next(iter(part), kind) if kind == "text" else kind))
    return text_of(part["text"])


def _is_learnt(turn: Mapping[str, Any]) -> bool:
    for key in _WEIGHT_KEYS:
        value = turn.get(key)
        if value is None:
            continue
        said = str(value).strip().casefold()
        if said in ("0", "0.0", "false"):
            return False
        if said not in ("1", "1.0", "true"):
            raise BadRow("odd_weight", key)
    return True


def _in_order(roles: list[str]) -> bool:
    """At most one system message, first; then user and assistant in turn; the assistant last."""
    turns = roles[1:] if roles[:1] == ["system"] else roles
    return (
        len(turns) >= 2
        and len(turns) % 2 == 0
        and all((role in ("assistant", NOT_LEARNT)) == bool(i % 2) and role != "system" for i, role in enumerate(turns))
    )
