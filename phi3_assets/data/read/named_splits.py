"""Which side of the split a file or an array is on by its name: train, test or validation."""

import re
from collections.abc import Sequence

from phi3_assets.data.read.rows import Section

UNNAMED, TRAINING, TESTING, VALIDATION = range(4)
_NAMES = {
    **dict.fromkeys(("train", "training"), TRAINING),
    **dict.fromkeys(("test", "testing"), TESTING),
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), VALIDATION),
}


def side_of(name: str) -> int:
    """Of a path with '/' or a section's name: the side that its last telling part names, if that is one."""
    for part in reversed(name.casefold().split("/")):
        sides = {_NAMES[word] for word in re.split(r"[^a-z]+", part) if word in _NAMES}
        if sides:
            return sides.pop() if len(sides) == 1 else UNNAMED
    return UNNAMED


def sides_of(file: str, sections: Sequence[Section], rows: Sequence[int]) -> list[int]:
    """The side of each row of a file: that of its array or sheet, else that of the file."""
    of_file = side_of(file)
    if not sections:
        return [of_file] * len(rows)
    found: list[int] = []
    at = 0
    for row in rows:
        while at + 1 < len(sections) and sections[at + 1].first_row <= row:
            at += 1
        found.append(side_of(sections[at].name.replace(".", "/")) or of_file)
    return found
