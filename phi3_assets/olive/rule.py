"""What became of one key of an Olive configuration; the tables of `legacy_rules` are made of these."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class NotTaken(Exception):
    """A value that a rule has no counterpart for.

    Attributes:
        verdict: "dropped" where the recipe does without, "refused" where it may not say what was meant.
        why: The reason, and what to do.
    """

    def __init__(self, verdict: str, why: str) -> None:
        super().__init__(why)
        self.verdict = verdict
        self.why = why


@dataclass(frozen=True)
class Rule:
    """What becomes of a key.

    Attributes:
        verdict: "kept" under its name, "renamed", "replaced" by something of another kind, "dropped", or "refused".
        why: The reason, for a person who has the old file before him.
        fields: Recipe field to value, from the key's value, which may be anything; raises `NotTaken`. None: no field.
        settings: Setting of Azure to value, likewise.
    """

    verdict: str
    why: str = ""
    fields: Callable[[Any], dict[str, Any]] | None = None
    settings: Callable[[Any], dict[str, Any]] | None = None


def kept(field: str) -> Rule:
    """The same name in the recipe."""
    return Rule("kept", f"recipe field {field}", lambda value: {field: value})


def renamed(field: str, why: str = "") -> Rule:
    """Another name in the recipe, the same value."""
    return Rule("renamed", f"recipe field {field}{'; ' + why if why else ''}", lambda value: {field: value})


def replaced(why: str, fields: Callable[[Any], dict[str, Any]] | None = None) -> Rule:
    """Something of another kind does this job."""
    return Rule("replaced", why, fields)


def empty() -> Rule:
    """What may hold keys, and holds none."""

    def check(value: Any) -> dict[str, Any]:
        if value:
            raise NotTaken("refused", "keys with values belong here")
        return {}

    return Rule("dropped", "it is empty", check)


def dropped(why: str) -> Rule:
    """Nothing takes its place."""
    return Rule("dropped", why)
