"""Parts of the test set that are looked at apart: what is gained on the whole may be lost on one of them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

# Of fewer items nothing can be said.
MIN_SLICE_ITEMS = 8
NEW, OLD = "new items", "old items"
_SOURCE = "source "


def slices_of(records: Sequence[Mapping[str, Any]], known: Collection[str]) -> dict[str, list[int]]:
    """Places of the items of each slice, by the slice's name; slices that are too small, or all items, are left out.

    Args:
        records: Lines of items.jsonl.
        known: Ids of the items that the champion's own report was made on; the others arrived since.
    """
    lengths = sorted(int(record["reference_tokens"]) for record in records)
    middle = lengths[len(lengths) // 2]
    found: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        names = [
            OLD if record["id"] in known else NEW,
            f"{'short' if record['reference_tokens'] < middle else 'long'} answers",
        ]
        if record.get("source"):
            names.append(f"{_SOURCE}{record['source']}")
        for name in names:
            found.setdefault(name, []).append(place)
    return {name: places for name, places in sorted(found.items()) if MIN_SLICE_ITEMS <= len(places) < len(records)}


def sources_of(records: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """Those slices of `slices_of` that are files of the dataset."""
    return {name: places for name, places in slices_of(records, ()).items() if name.startswith(_SOURCE)}


def to_be_learnt(name: str) -> bool:
    """Whether a slice is one that somebody brought: its answers must be preferred, and not only its style be met."""
    return name == NEW or name.startswith(_SOURCE)
