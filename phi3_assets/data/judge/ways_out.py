"""What to do about rows that are left out, by reason: said wherever such rows hold something back."""

from collections.abc import Mapping, Sequence
from typing import Any

WAYS_OUT = {
    "invalid_json": "mend the line",
    "bad_quotes": "double the quotes within a field",
    "too_few_fields": "quote fields that hold the delimiter",
    "too_many_fields": "quote fields that hold the delimiter",
    "too_deep": "flatten it",
    "too_large": "shorten the row",
    "spreadsheet_error": "mend the formula",
    "unknown_shape": "rename the columns, or set dataset_shape, or question_column and answer_column",
    "missing_column": "fill the column, or set dataset_shape, or question_column and answer_column",
    "not_an_object": "write each row as an object, with the names of its columns (pandas: orient='records')",
    "not_text": "write the value as text",
    "empty_text": "fill the field, or take the row out",
    "unknown_role": "say what the role is with role_names, as in role_names: [customer=user, agent=assistant]",
    "wrong_turn_order": "a system message first if any, then user and assistant in turn, the assistant last; "
    "role_names says which role is which",
    "tool_use": "the chat templates of this project know no tools: take such rows out, or name the column in "
    "ignore_columns if it may be left out",
    "not_only_text": "the base models read text alone: take such rows out, or name the column in ignore_columns",
    "reasoning_beside_answer": "write it into the answer if it is to be learnt, or name the key in ignore_columns",
    "rejected_answer": "none needed where such rows are meant to be left out: an answer marked as bad is no answer",
    "nothing_to_learn": "give an answer the weight 1, or take the conversation out",
    "odd_weight": "a weight is 0 or 1",
    "turn_a_row": "write the turns of a conversation into one row, as a list in the column messages",
    "no_turns": "write it as the first rows are, or set dataset_shape to text if passages are to be learnt as they are",
    "several_system_messages": "keep the column or the message, not both",
    "odd_history": "history is a list of pairs of question and answer",
    "control_characters": "take the characters out",
    "undecodable": "say the encoding with dataset_encoding, or save as UTF-8; half of an escaped pair is to be mended",
    "missing_group": "fill group_column",
}


def told(reason: str, rows: int, met: Mapping[str, int]) -> str:
    """A reason with its rows, what was met and what to do, in a phrase."""
    names = ", ".join(repr(name) for name in sorted(met, key=lambda name: -met[name])[:4])
    way_out = WAYS_OUT.get(reason, "")
    return f"{rows} {reason}" + (f" (met: {names})" if names else "") + (f": {way_out}" if way_out else "")


def why_left_out(files: Sequence[Mapping[str, Any]], at_most: int = 4) -> str:
    """The most frequent reasons for which rows are in quarantine, with file, count and way out.

    Args:
        files: Entries of `DatasetMetrics.files`.
        at_most: So many reasons are told.
    """
    found = [
        (rows, entry["file"], reason, entry["met"].get(reason, {}))
        for entry in files
        for reason, rows in entry["quarantined"].items()
    ]
    found.sort(key=lambda each: (-each[0], each[1], each[2]))
    parts = [f"{file}: {told(reason, rows, met)}" for rows, file, reason, met in found[:at_most]]
    more = len(found) - at_most
    return "; ".join(parts) + (f"; and {more} more" if more > 0 else "")
