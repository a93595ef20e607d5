"""Steps through nested mappings and lists, whatever stands in the place of either."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

Path = tuple[str, ...]

TRANSPARENT = {"config", "params"}
"""Keys that Olive's forms may leave out."""


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The value if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def flat(value: Any) -> dict[str, Any]:
    """A mapping with the keys of its nested `config` and `params` among its own."""
    found = dict(mapping(value))
    for name in TRANSPARENT:
        if isinstance(found.get(name), Mapping):
            found |= found.pop(name)
    return found


def walk(value: Any, path: Path, whole: Collection[str] = ()) -> Iterator[tuple[Path, Any]]:
    """Every value that is no mapping, with its path; lists are walked where mappings are in them."""
    if isinstance(value, Mapping) and value and not (path and path[-1] in whole):
        for name, inner in value.items():
            yield from walk(inner, (*path, name), whole)
    elif _is_open(value) and path[-1:] != ("accelerators",):
        for number, inner in enumerate(value):
            yield from walk(inner, (*path, str(number)), whole)
    elif path:
        yield path, value


def _is_open(value: Any) -> bool:
    return any(isinstance(inner, Mapping) or _is_open(inner) for inner in items(value))


def at(value: Any, path: Path) -> Any:
    """What stands at a path; an empty mapping or None where nothing does."""
    for part in path:
        inner = items(value)
        value = inner[int(part)] if inner and part.isdigit() and int(part) < len(inner) else mapping(value).get(part)
    return value
