"""Tables as the UI shows them: short, at most seven columns, the most important first, units in the head."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

MOST_COLUMNS = 7
"""What fits beside the UI's own columns without scrolling."""
MOST_ROWS = 10
Columns = Sequence[tuple[str, str]]
"""Key and heading."""


def table(rows: Sequence[Mapping[str, Any]], columns: Columns = ()) -> dg.MetadataValue:
    """A table; cells that are no number or text are shown as JSON.

    Args:
        rows: What is shown.
        columns: What is shown of them, in this order, unless no row has it; (): everything, under its own name.
    """
    if not rows:
        return dg.MetadataValue.text("none")
    shown = [one for one in columns if any(one[0] in row for row in rows)] or [(name, name) for name in rows[0]]
    records = [dg.TableRecord({heading: _cell(row.get(key)) for key, heading in shown}) for row in rows]
    types = [dg.TableColumn(heading, _column_type(rows[0].get(key))) for key, heading in shown]
    return dg.MetadataValue.table(records, dg.TableSchema(types))


def counts_table(counts: Mapping[str, Any], key: str, value: str) -> dg.MetadataValue:
    """A table of two columns."""
    return table([{key: name, value: count} for name, count in counts.items()])


def histogram_table(histogram: Mapping[str, Sequence[float]]) -> dg.MetadataValue:
    """A table of bins with a bar that can be read without a picture."""
    edges, counts = histogram["edges_tokens"], histogram["rows"]
    most = max(counts, default=0) or 1
    return table(
        [
            {"tokens": f"{low:.0f} to {high:.0f}", "rows": rows, "": "█" * round(30 * rows / most)}
            for low, high, rows in zip(edges, edges[1:], counts, strict=False)
        ]
    )


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    return value if isinstance(value, str | int) else json.dumps(value)


def _column_type(value: Any) -> str:
    return {int: "int", float: "float", bool: "bool"}.get(type(value), "string")
