"""Keys that change what a row means: used where its shape defines them, else the row is refused and the key is named.

A rejected answer was learnt, an answer was learnt without the tools that it calls: the columns were dropped without a
word.
"""

import math
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any

REFUSED = {
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call", "tool_call_id"), "tool_use"),
    **dict.fromkeys(("image", "images", "audio", "audios", "video", "videos"), "not_only_text"),
    **dict.fromkeys(("reasoning_content", "thinking", "reasoning"), "reasoning_beside_answer"),
}
"""What a key with something in it makes of a row or of a turn, unless `ignore_columns` names it."""
_VERDICTS = ("label", "kto_tag")
"""Whether an answer is a good one, where it says true or false; a label of another kind is a column like others."""
_FREE_IN_ROWS = {"reasoning", "thinking"}
"""Of these a row's column may be anything; in a turn they are what was thought before the answer."""
_MOST_NAMES = 50
_NAME_CHARS = 60


class BadRow(Exception):
    """A row that has no messages.

    Attributes:
        reason: The reason code.
        met: The name of what was met, such as a role or a key; never text.
    """

    def __init__(self, reason: str, met: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.met = met[:_NAME_CHARS]


def is_empty(value: Any) -> bool:
    """Whether a value says nothing: null, NaN, an empty text, list or object."""
    if value is None or value == "" or (isinstance(value, list | dict) and not value):
        return True
    return (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, str) and not value.strip())


def refuse_if_meant_otherwise(row: Mapping[str, Any], used: Set[str], ignored: Set[str]) -> None:
    """Refuse a row of which a column that its shape does not use says that it means something else.

    Raises:
        BadRow: tool_use, not_only_text, reasoning_beside_answer or rejected_answer.
    """
    for name in row.keys() - used:
        key = str(name).strip().casefold()
        if key in ignored:
            continue
        if key in REFUSED and key not in _FREE_IN_ROWS and not is_empty(row[name]):
            raise BadRow(REFUSED[key], str(name))
        if key in _VERDICTS and str(row[name]).strip().casefold() == "false":
            raise BadRow("rejected_answer", str(name))


class Unused:
    """Counts columns that nothing is made of, by their fill."""

    def __init__(self, ignored: Set[str]) -> None:
        self._ignored = ignored
        self.rows: Counter[str] = Counter()

    def count(self, row: Mapping[str, Any], used: Set[str], within: str = "") -> None:
        """Count the columns of a row, or the keys of a turn within a column, that are not used and not empty."""
        for name in row.keys() - used:
            shown = f"{within}{name}"[:_NAME_CHARS]
            known = shown in self.rows or len(self.rows) < _MOST_NAMES
            key = str(name).strip().casefold()
            is_verdict = key in _VERDICTS and str(row[name]).strip().casefold() in ("true", "false")
            if known and key not in self._ignored and not is_verdict and not is_empty(row[name]):
                self.rows[shown] += 1
