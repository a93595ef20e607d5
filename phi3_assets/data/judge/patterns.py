"""What a text must have for a regular expression to match, so that most texts need not be searched."""

import re
from collections.abc import Iterable
from re import _constants as ops  # type: ignore[attr-defined]  # what the module itself parses with
from re import _parser as parser  # type: ignore[attr-defined]
from string import ascii_letters, digits
from typing import Any

_RUN = frozenset(map(ord, ascii_letters + digits + "_-"))


def least_run(pattern: re.Pattern[str]) -> int:
    """Length of a run of ASCII letters, digits, "_" and "-" that is in every text that matches; 0: none is known."""
    return _longest(parser.parse(pattern.pattern, pattern.flags))


def _longest(tree: Iterable[tuple[Any, Any]]) -> int:
    """Of a sequence the longest run that one of its parts must be."""
    return max((_run(kind, given) for kind, given in tree), default=0)


def _run(kind: Any, given: Any) -> int:
    if kind in (ops.MAX_REPEAT, ops.MIN_REPEAT):
        least, _, part = given
        alone = len(part) == 1 and _is_of_run(*part[0])
        return least if alone else _longest(part) if least else 0
    if kind is ops.SUBPATTERN:
        return _longest(given[-1])
    if kind is ops.BRANCH:
        return min(map(_longest, given[1]))
    return 0


def _is_of_run(kind: Any, given: Any) -> bool:
    if kind is ops.LITERAL:
        return given in _RUN
    return kind is ops.IN and all(
        part in _RUN if one is ops.LITERAL else one is ops.RANGE and _RUN.issuperset(range(part[0], part[1] + 1))
        for one, part in given
    )
