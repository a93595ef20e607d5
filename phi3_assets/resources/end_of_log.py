"""What a step that failed printed last, as metadata of its failure."""

import dagster as dg

_LINES = 30


def end_of_log(log: str) -> dict[str, dg.MetadataValue]:
    """The last lines of a log. Indented, because no line can end that, as one with three backticks ends a fence."""
    return {"end of log": dg.MetadataValue.md("\n".join(f"    {line}" for line in log.splitlines()[-_LINES:]))}
