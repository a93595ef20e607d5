"""By what a record is known: its content, and the question it asks."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from phi3_assets.data import Message
from phi3_assets.data.fingerprints import normalise
from phi3_assets.data.judge.words import GREETING_WORDS, content_words

_GREETING_BYTES = 40
_TELLING_WORDS = 4
"""With so many words, fillers and greetings aside, a question tells conversations apart."""


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


def opening_questions(roles: NDArray[np.str_], texts: pa.Array, turns: NDArray[np.int64]) -> pa.Array:
    """What tells conversations apart, normalised: the first question, with the next ones if that is like 'Hi'.

    Else all conversations that begin with a greeting would be one group, and all of them on one side.
    """
    firsts = first_questions(roles, texts, turns).to_pylist()
    asked = roles == "user"
    questions = normalise(texts.filter(pa.array(asked))).to_pylist()
    ends = np.cumsum(np.add.reduceat(asked, np.cumsum(turns) - turns, dtype=np.int64)) if len(turns) else turns
    start = 0
    for row, end in enumerate(ends.tolist()):
        words = 0
        taken = start
        while taken < end and words < _TELLING_WORDS:
            words += len(set(content_words(questions[taken])) - GREETING_WORDS)
            taken += 1
        if taken > start + 1:
            firsts[row] = "\n".join(questions[start:taken])
        start = end
    return pa.array(firsts, pa.string())


def is_greeting(questions: pa.Array) -> NDArray[np.bool_]:
    """Which normalised questions are nothing but a greeting: no model can be judged by the answer to 'Hi'."""
    short = pc.less(pc.binary_length(questions), _GREETING_BYTES).to_numpy(zero_copy_only=False)
    found = np.zeros(len(questions), bool)
    for place in np.flatnonzero(short).tolist():
        words = content_words(questions[place].as_py())
        found[place] = bool(words) and set(words) <= GREETING_WORDS
    return found


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
