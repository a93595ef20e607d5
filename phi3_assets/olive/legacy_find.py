"""Finds the rule of a place in an Olive configuration, or the nearest name that there is a rule for.

In a pattern `*` stands for one part, `**` at its end for any number of parts, none included.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from phi3_assets.olive.rule import Rule

# A misspelt word has most of its letters in common with the right one; below that, a hint misleads.
_NEAR = 0.8


def near(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The sentence " Did you mean 'x'?" for the known name that `name` misspells; empty where there is none."""
    whole = {one.lower(): one for one in known}
    match = get_close_matches(name.lower(), whole, n=1, cutoff=_NEAR)
    return f" Did you mean {prefix + whole[match[0]]!r}?" if match else ""


class Rules:
    """A table of rules, by pattern."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._root: dict[str, Any] = {}
        for pattern, rule in rules.items():
            node = self._root
            for part in pattern.split("."):
                node = node.setdefault(part, {})
            node[""] = rule

    def find(self, place: Sequence[str]) -> Rule | None:
        """The rule of a place, the one with a name in full before the one with a wildcard."""
        return _find(self._root, place)

    def hint(self, place: Sequence[str]) -> str:
        """The sentence that names what is close to the first part without a rule; empty where nothing is."""
        node, known = self._root, list[str]()
        for part in place:
            if part in node and part:
                node, known = node[part], [*known, part]
            elif "*" in node:
                node, known = node["*"], [*known, "*"]
            else:
                return near(part, [name for name in node if name.strip("*")], ".".join([*known, ""]))
        return ""


def _find(node: Mapping[str, Any], place: Sequence[str]) -> Rule | None:
    if not place:
        found = node.get("") or node.get("**", {}).get("")
        return found if isinstance(found, Rule) else None
    for part in (place[0], "*"):
        if part and part != "**" and part in node and (rule := _find(node[part], place[1:])):
            return rule
    rest = node.get("**", {}).get("")
    return rest if isinstance(rest, Rule) else None
