"""Which side of the split a file or an array is on by its name: train, test or validation."""

import re
from collections.abc import Sequence

from phi3_assets.core.files import DATA_FORMATS
from phi3_assets.data.read.rows import Section

UNNAMED, TRAINING, TESTING, VALIDATION = range(4)
_NAMES = {
    "train": TRAINING,
    "test": TESTING,
    **dict.fromkeys(("validation", "valid", "val", "dev", "eval"), VALIDATION),
}
_ALONE = {"training": TRAINING, "testing": TESTING}
"""With a word beside them these are what the file is about."""
_SAY_NOTHING = {"data", "dataset", "set", "split", "part", "gz", *(ending[1:] for ending in DATA_FORMATS)}
_SHARD = re.compile(r"-\d+-of-\d+.*")


def side_of(name: str) -> int:
    """The side that a path with '/' names: the last word of a file or folder does, as in qa_train.csv or test/a.csv.

    test_procedures.csv is about procedures.
    """
    for part in reversed(name.casefold().split("/")):
        words = [word for word in re.split(r"[^a-z]+", _SHARD.sub("", part)) if word and word not in _SAY_NOTHING]
        if words and words[-1] in _NAMES:
            return _NAMES[words[-1]]
        if len(words) == 1 and words[0] in _ALONE:
            return _ALONE[words[0]]
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
