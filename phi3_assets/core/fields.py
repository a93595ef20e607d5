"""Whose a recipe field is and what it may be: said once, where the field is defined; all others read it there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types
from pydantic import Field
from pydantic.fields import FieldInfo

_KEY = "phi3"
_SIGNS = {
    annotated_types.Ge: "at least",
    annotated_types.Gt: "over",
    annotated_types.Le: "at most",
    annotated_types.Lt: "under",
}


@dataclass(frozen=True)
class Use:
    """Who reads a recipe field.

    Attributes:
        steps: Steps whose result it can change: it is in their identity.
        setting_of: Steps whose function is handed it, though it cannot change their result: it is in no identity.
        asked_by: Who reads it outside of steps, such as the gate; "": nobody.
    """

    steps: tuple[str, ...] = ()
    setting_of: tuple[str, ...] = ()
    asked_by: str = ""

    def __str__(self) -> str:
        """For people, as in "raw_dataset, formatted_corpus; a setting of lora_adapter; the gate"."""
        parts = [", ".join(self.steps)]
        parts += [f"a setting of {', '.join(self.setting_of)}"] if self.setting_of else []
        return "; ".join(part for part in (*parts, self.asked_by) if part)


def field(default: Any, *steps: str, setting_of: str | tuple[str, ...] = (), asked_by: str = "", **rules: Any) -> Any:
    """A field of the recipe; `rules` are those of pydantic's `Field`. See `Use` for the others.

    Raises:
        TypeError: Nobody reads it.
    """
    settings = (setting_of,) if isinstance(setting_of, str) else setting_of
    if not (steps or settings or asked_by):
        raise TypeError("A recipe field names the steps that read it, or who else does (asked_by).")
    use: Any = {"steps": list(steps), "setting_of": list(settings), "asked_by": asked_by}
    return Field(default, json_schema_extra={_KEY: use}, **rules)


def use_of(info: FieldInfo) -> Use:
    """Who reads this field."""
    extra = info.json_schema_extra
    assert isinstance(extra, Mapping), "defined with pydantic's Field and not with this module's"
    use: Any = extra[_KEY]
    return Use(tuple(use["steps"]), tuple(use["setting_of"]), use["asked_by"])


def allowed(info: FieldInfo) -> str:
    """What a field may be: its choices, or its type with the range."""
    kind = info.annotation
    if get_origin(kind) is Literal:
        return " | ".join(map(told, get_args(kind)))
    said = "list" if get_origin(kind) is list else getattr(kind, "__name__", str(kind))
    limits = [f"{sign} {_limit(rule)}" for rule in info.metadata for of, sign in _SIGNS.items() if isinstance(rule, of)]
    return ", ".join(
        [{"str": "text", "int": "whole number", "float": "number", "bool": "true | false"}.get(said, said), *limits]
    )


def told(value: Any) -> str:
    """A value as a recipe's YAML writes it, on one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(told, value))}]"
    return repr(value) if value == "" or (isinstance(value, str) and "\n" in value) else str(value)


def _limit(rule: Any) -> Any:
    return next(getattr(rule, name) for name in ("ge", "gt", "le", "lt") if hasattr(rule, name))
