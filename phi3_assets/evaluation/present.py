"""The table of the four variants, for the terminal and for Dagster's Markdown. Pure text, no other imports."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

Variants = Mapping[str, Mapping[str, float | None]]

LABELS = {
    "base": "base",
    "adapter": "base + adapter",
    "merged": "merged",
    "int4": "int4 (ONNX)",
}


class Column(NamedTuple):
    """One metric as people see it.

    Attributes:
        metric: Its key in a variant's numbers.
        title: Column heading.
        meaning: One sentence for the report.
        better: 1: more is better, -1: less is better, 0: neither.
        text: Formats the number.
    """

    metric: str
    title: str
    meaning: str
    better: int
    text: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _size(value: float) -> str:
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 1 else f"{1000 * value:.0f} ms"


QUALITY = (
    Column("nll", "NLL", "Surprise at the right answer, nats per token", -1, "{:.3f}".format),
    Column("perplexity", "Perplexity", "exp(NLL): choices it hesitates between", -1, "{:.2f}".format),
    Column(
        "preference",
        "Preference",
        "Nats per token for the right answer over that to another question",
        1,
        "{:.2f}".format,
    ),
    Column("exact_match", "Exact match", "Answers equal to the reference", 1, _percent),
    Column("f1", "Token F1", "Overlap of words with the reference", 1, _percent),
    Column("rouge_l", "ROUGE-L", "Words in common, in the same order", 1, _percent),
    Column("chrf", "chrF", "Character sequences in common", 1, _percent),
    Column("json_valid", "Valid JSON", "Answers that parse, where the reference is JSON", 1, _percent),
    Column("stop_rate", "Stops", "Answers that end by themselves", 1, _percent),
    Column("repetition", "Repeats", "4-token sequences that an answer had before", -1, _percent),
    Column("answer_tokens", "Length", "Mean tokens of an answer", 0, "{:.1f}".format),
)
# What fine-tuning and quantising cost, and running the result.
COST = (
    Column("general_nll", "General NLL", "Surprise at ordinary prose: what was forgotten", -1, "{:.3f}".format),
    Column("general_right", "General facts", "Plain facts it finds likelier than errors", 1, _percent),
    Column("prefill_tokens_per_s", "Prefill/s", "Tokens of the prompt read in a second", 1, "{:.0f}".format),
    Column("tokens_per_s", "Tokens/s", "Decoding speed for one user", 1, "{:.1f}".format),
    Column("time_to_first_token_s", "First token", "Wait for the first token", -1, _seconds),
    Column("peak_memory_bytes", "Memory", "Peak of a process that does nothing else", -1, _size),
    Column("bytes", "Size", "Bytes on disk, all that is needed to run it", -1, _size),
)
COLUMNS = (*QUALITY, *COST)
# What fits on a line of a terminal.
BRIEF = tuple(
    column
    for column in COLUMNS
    if column.metric
    in ("nll", "exact_match", "f1", "stop_rate", "tokens_per_s", "time_to_first_token_s", "peak_memory_bytes", "bytes")
)


def shown_columns(variants: Variants, columns: Sequence[Column] = BRIEF) -> list[Column]:
    """Those of `columns` that at least one variant has a number for."""
    return [column for column in columns if any(one.get(column.metric) is not None for one in variants.values())]


def table_cells(variants: Variants, columns: Sequence[Column] = BRIEF) -> tuple[list[str], list[list[str]]]:
    """Headings and rows as text; a metric that no variant has is left out, a missing number is a dash.

    Args:
        variants: Numbers of each variant, by name and metric.
        columns: What to show.
    """
    shown = shown_columns(variants, columns)
    rows = []
    for name, numbers in variants.items():
        row = [LABELS.get(name, name)]
        for column in shown:
            value = numbers.get(column.metric)
            row.append("-" if value is None else column.text(value))
        rows.append(row)
    return ["Variant", *(column.title for column in shown)], rows


def markdown_table(variants: Variants) -> str:
    """The variants as a Markdown table, numbers to the right."""
    head, rows = table_cells(variants, COLUMNS)
    rule = [":--", *("--:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


# What tells at one look whether a retrain is better: heading with its unit, metric, and what the number is divided by.
LOOKED_AT = (
    ("NLL, nats/token", "nll", 1.0),
    ("Exact match, %", "exact_match", 0.01),
    ("Speed, tokens/s", "tokens_per_s", 1.0),
    ("Size, MB", "bytes", 1e6),
    ("Token F1, %", "f1", 0.01),
    ("First token, ms", "time_to_first_token_s", 0.001),
)
_PLOTTED = ("nll", "exact_match", "tokens_per_s", "bytes")


def score_rows(variants: Variants) -> list[dict[str, str | float | None]]:
    """The variants as a table of numbers of seven columns, units in the head; int4, which is shipped, first."""
    return [
        {"Variant": name} | {title: _in_unit(variants[name], metric, unit) for title, metric, unit in LOOKED_AT}
        for name in reversed([*variants])
    ]


def plotted(variants: Variants) -> dict[str, float]:
    """Numbers that are plotted over retrains, metric by metric: "NLL, nats/token: int4" and so on."""
    return {
        f"{title}: {name}": value
        for title, metric, unit in LOOKED_AT
        if metric in _PLOTTED
        for name, numbers in variants.items()
        if (value := _in_unit(numbers, metric, unit)) is not None
    }


def _in_unit(numbers: Mapping[str, float | None], metric: str, unit: float) -> float | None:
    value = numbers.get(metric)
    return None if value is None else float(f"{value / unit:.4g}")


def text_table(variants: Variants) -> str:
    """The variants as aligned columns of plain text."""
    head, rows = table_cells(variants)
    lines: Sequence[Sequence[str]] = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    texts = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([texts[0], "-" * max(len(text) for text in texts), *texts[1:]])
