"""By what a record is known: its content, and the question it asks."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from phi3_assets.data import Message
from phi3_assets.data.fingerprints import normalise


def identifying_texts(roles: Sequence[str], contents: Sequence[str], turns: Sequence[int]) -> Iterator[str]:
    """A text for each row that no other conversation has: no content holds the control characters between."""
    end = 0
    for count in turns:
        start, end = end, end + count
        yield "\x1e".join([f"{roles[i]}\x1f{contents[i]}" for i in range(start, end)])


def first_questions(roles: NDArray[np.str_], texts: pa.Array, turns: NDArray[np.int64]) -> pa.Array:
    """What is asked first in each row, normalised: the first message that is no system message."""
    starts = np.cumsum(turns) - turns
    return normalise(texts.take(pa.array(starts + (roles[starts] == "system"))))


def asked_questions(roles: NDArray[np.str_], texts: pa.Array, turns: NDArray[np.int64]) -> pa.Array:
    """All that comes before the last answer of each row but system messages, normalised; '' for a passage."""
    starts = np.cumsum(turns) - turns
    if ((turns == 2) & (roles[starts] == "user")).all():
        return first_questions(roles, texts, turns)
    contents = texts.to_pylist()
    firsts = starts + (roles[starts] == "system")
    ends = starts + turns - 1
    joined = ["\n".join(contents[start:end]) for start, end in zip(firsts, ends, strict=True)]
    return normalise(pa.array(joined, pa.string()))


def flat(rows: Sequence[list[Message]]) -> tuple[list[str], list[str], NDArray[np.int64]]:
    """Roles and contents of conversations end to end, and the messages of each."""
    roles = [role for row in rows for role, _ in row]
    contents = [content for row in rows for _, content in row]
    return roles, contents, np.array([len(row) for row in rows], np.int64)
