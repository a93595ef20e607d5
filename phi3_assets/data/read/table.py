"""Where in a table its header is, and what a row of fields is under it. Shared by delimited text and spreadsheets."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from phi3_assets.data.read.rows import FileDamage, Rank, Row

LOOKED_AT = 20
"""Lines among which the header is looked for."""


def find_header(lines: Sequence[Sequence[Any]], rank: Rank) -> int:
    """Which line is the header: the first with the columns of the dataset, if what stands above it has fewer fields.

    A title, a date of export or a blank row stand above many a header.
    """
    for place, fields in enumerate(lines[:LOOKED_AT]):
        names = [name for name in map(_name, fields) if name]
        if rank(dict.fromkeys(names, "x")) and all(_filled(above) < len(names) for above in lines[:place]):
            return place
    return 0


def _filled(fields: Sequence[Any]) -> int:
    return sum(_name(field) != "" for field in fields)


def _name(field: Any) -> str:
    return "" if field is None else str(field).strip()


def column_names(header: Sequence[Any]) -> list[str]:
    """The names of the columns; those without one are called by their number, and such at the end are left out.

    Raises:
        FileDamage: Two have the same name.
    """
    names = [_name(field) for field in header]
    while len(names) > 1 and not names[-1]:
        names.pop()
    names = [name or f"column {number}" for number, name in enumerate(names, 1)]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise FileDamage("bad_header", f"two columns are named {twice[0][:60]!r}; give one of them another name")
    return names


def row_of(number: int, names: list[str], fields: Sequence[Any]) -> Row:
    """The fields by their columns' names; empty ones beyond the last column are none."""
    fields = list(fields)
    while len(fields) > len(names) and _name(fields[-1]) == "":
        fields.pop()
    if len(fields) == len(names):
        return Row(number, dict(zip(names, fields, strict=True)))
    return Row(number, None, "too_few_fields" if len(fields) < len(names) else "too_many_fields")
