"""Which test items are near alike, and so tell the same thing twice.

Several phrasings of one question, several turns of one customer: a model that knows the fact gets all of them right, so
they are one observation and not several. Whatever is said about how far numbers can be trusted counts groups.
"""

from collections.abc import Mapping, Sequence
from typing import Any

# A shorter reference may be a label ("yes", "category B") that many unrelated questions share.
FACT_WORDS = 4


def groups_of(records: Sequence[Mapping[str, Any]]) -> list[int]:
    """Number of the group that each item is in, from 0 in the order of first appearance.

    Two items are in one group if the dataset's own grouping says so (`group`: same value of the recipe's group_column,
    or the same question) or if their reference answers are the same text of at least `FACT_WORDS` words: the same fact.

    Args:
        records: Lines of items.jsonl.
    """
    parent = list(range(len(records)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    first: dict[tuple[str, str], int] = {}
    for place, record in enumerate(records):
        for key in _keys(record):
            parent[root(place)] = root(first.setdefault(key, place))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(place), len(numbers)) for place in range(len(records))]


def _keys(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    keys = [("group", str(record["group"]))] if record.get("group") else []
    words = str(record["reference"]).casefold().split()
    return keys + ([("reference", " ".join(words))] if len(words) >= FACT_WORDS else [])
