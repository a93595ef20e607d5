"""What a person sees of an artefact in the Dagster UI: metadata made from its manifest and files."""

import base64
import html
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import Manifest
from phi3_assets.core.shown import Shown
from phi3_assets.core.web_address import page_url
from phi3_assets.evaluation.present import markdown_table
from phi3_assets.resources.origin import Origin
from phi3_assets.steps import step_of

Metadata = dict[str, Any]
# The event log is a database; beyond this a picture is named, not embedded.
LARGEST_PLOT_BYTES = 300_000
LONGEST_TABLE_ROWS = 20


def describe(manifest: Manifest, directory: Path) -> Metadata:
    """Everything worth showing of one artefact.

    Numbers stay numbers, so that the UI plots them over materialisations.

    Args:
        manifest: The artefact's.
        directory: Where its files can be read.
    """
    step = step_of(manifest.call.step)
    special: Metadata = {"dagster/row_count": manifest.metrics[step.row_count]} if step.row_count else {}
    identity = manifest.call.identity
    special |= links({one.name: page_url(one.page, identity) for one in step.shows if one.kind == "page"})
    special |= drawings(step.shows, manifest.metrics, directory)
    plain = {
        name: float(f"{value:.5g}") if isinstance(value, float) else value
        for name, value in manifest.metrics.items()
        if isinstance(value, str | int | float) and value != ""
    }
    return {
        **special,  # pictures and tables first: they are what a person opens the page for
        **plain,
        "identity": identity[:SHORT],
        "size_bytes": manifest.bytes,
        "step_seconds": manifest.ran["seconds"],
        "parameters of the step": dg.MetadataValue.json(manifest.call.params),
        **({"run with": dg.MetadataValue.json(settings)} if (settings := manifest.call.settings) else {}),
        "made on": f"{manifest.ran['host']} ({manifest.ran['execution']}), {manifest.ran['finished']}",
        **({"job": manifest.ran["job"]} if "job" in manifest.ran else {}),
        "versions": dg.MetadataValue.json(manifest.versions),
    }


def drawings(shows: Iterable[Shown], metrics: Mapping[str, Any], directory: Path) -> Metadata:
    """What a step says is to be shown; a file that this artefact does not have is left out."""
    drawn = {}
    for one in shows:
        if one.kind == "page":
            continue  # it is no file of the artefact's
        if one.metric:
            drawn[one.name] = _of_metric(one, metrics[one.metric])
        elif (directory / one.file).exists():
            drawn[one.name] = _of_file(one, directory / one.file)
    return drawn


def _of_metric(shown: Shown, value: Any) -> dg.MetadataValue:
    match shown.kind:
        case "table":
            return _table(value)
        case "counts":
            return counts_table(value, *shown.words)
        case "histogram":
            return histogram_table(value)
        case "learnt":
            drawing = coloured_svg([(piece["text"], piece["learnt"]) for piece in value])
            return _picture(drawing.encode(), "svg+xml", *shown.words)
        case "scores":
            return dg.MetadataValue.md(markdown_table(value))
        case "json":
            return dg.MetadataValue.json(value)
    raise AssertionError(f"{shown.name}: a metric cannot be shown as {shown.kind}")


def _of_file(shown: Shown, path: Path) -> dg.MetadataValue:
    match shown.kind:
        case "table":
            return _table(_thin(json.loads(path.read_text(encoding="utf-8")), LONGEST_TABLE_ROWS))
        case "image":
            return plot(path, *shown.words)
        case "markdown":
            return dg.MetadataValue.md(path.read_text(encoding="utf-8").split("---", 2)[-1])
        case "path":
            return dg.MetadataValue.path(str(path))
    raise AssertionError(f"{shown.name}: a file cannot be shown as {shown.kind}")


def origin_metadata(origin: Origin) -> Metadata:
    """Where a release comes from: its artefacts and the user's files, as tables."""
    made = [
        {"artefact": one.kind, "identity": one.identity[:SHORT], "content": one.digest, "code": one.code_version}
        for one in origin.made
    ]
    files = [{"file": one.file, "rows": one.rows, "content": one.sha256} for one in origin.sources]
    more = len(files) - LONGEST_TABLE_ROWS
    told = {"source files that are not shown: phi3 lineage": more} if more > 0 else {}
    return {"lineage": _table(made), "source files": _table(files[:LONGEST_TABLE_ROWS]), **told}


def place(where: str) -> dg.MetadataValue:
    """A path, or a link where it is a web page's address."""
    return dg.MetadataValue.url(where) if where.startswith("https://") else dg.MetadataValue.path(where)


def links(urls: Mapping[str, str | None]) -> Metadata:
    """Links to pages of `phi3 web`, by name; where that is not used there are none."""
    return {name: dg.MetadataValue.url(url) for name, url in urls.items() if url}


def plot(path: Path, alternative: str) -> dg.MetadataValue:
    """A PNG inside Markdown, which the UI shows; its path if it is too large for the event log."""
    if path.stat().st_size > LARGEST_PLOT_BYTES:
        return dg.MetadataValue.path(str(path))
    return _picture(path.read_bytes(), "png", alternative)


def _picture(content: bytes, kind: str, alternative: str) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![{alternative}](data:image/{kind};base64,{base64.b64encode(content).decode()})")


def coloured_svg(pieces: list[tuple[str, bool]], columns: int = 96, most_lines: int = 40) -> str:
    """A training row as a picture: what is learnt stands bold on yellow, what is only read is grey.

    Args:
        pieces: Text, and whether it is learnt.
        columns: Characters of a line.
        most_lines: Longer rows end in an ellipsis.
    """
    lines: list[list[tuple[int, str, bool]]] = [[]]
    column = 0
    for text, learnt in pieces:
        for part in text.replace("\n", "↵\n").splitlines(keepends=True):
            rest = part.removesuffix("\n")
            while rest:
                if column == columns:
                    lines.append([])
                    column = 0
                fits, rest = rest[: columns - column], rest[columns - column :]
                lines[-1].append((column, fits, learnt))
                column += len(fits)
            if part.endswith("\n"):
                lines.append([])
                column = 0
    if len(lines) > most_lines:
        lines = [*lines[: most_lines - 1], [(0, "…", False)]]
    width, height = 8, 20  # pixels of a character
    drawn = []
    for number, line in enumerate(lines):
        for start, text, learnt in line:
            x, y = (start + 1) * width, (number + 1) * height
            if learnt:
                box = f'x="{x}" y="{y - 15}" width="{len(text) * width}" height="{height}"'
                drawn.append(f'<rect {box} fill="#FFE28A"/>')
            # textLength: whatever font the browser has, characters stand where the boxes are.
            look = 'font-weight="bold" fill="#000"' if learnt else 'fill="#666"'
            drawn.append(
                f'<text x="{x}" y="{y}" textLength="{len(text) * width}" lengthAdjust="spacingAndGlyphs" {look} '
                f'xml:space="preserve">{html.escape(text)}</text>'
            )
    size = f'width="{(columns + 2) * width}" height="{(len(lines) + 1) * height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="13">'
        f'<rect {size} fill="#FFF"/>{"".join(drawn)}</svg>'
    )


def _table(rows: list[dict[str, Any]]) -> dg.MetadataValue:
    """A table; cells that are no number or text are shown as JSON."""
    if not rows:
        return dg.MetadataValue.text("none")
    records = [dg.TableRecord({name: _cell(value) for name, value in row.items()}) for row in rows]
    return dg.MetadataValue.table(
        records, dg.TableSchema([dg.TableColumn(name, _column_type(rows[0][name])) for name in rows[0]])
    )


def _cell(value: Any) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return value if isinstance(value, str | int) else json.dumps(value)


def counts_table(counts: dict[str, Any], key: str, value: str) -> dg.MetadataValue:
    """A table of two columns."""
    return _table([{key: name, value: count} for name, count in counts.items()])


def histogram_table(histogram: Mapping[str, Sequence[float]]) -> dg.MetadataValue:
    """A table of bins with a bar that can be read without a picture."""
    edges, counts = histogram["edges_tokens"], histogram["rows"]
    most = max(counts, default=0) or 1
    return _table(
        [
            {"tokens": f"{low:.0f} to {high:.0f}", "rows": rows, "": "█" * round(30 * rows / most)}
            for low, high, rows in zip(edges, edges[1:], counts, strict=False)
        ]
    )


def _column_type(value: Any) -> str:
    return {int: "int", float: "float", bool: "bool"}.get(type(value), "string")


def _thin(rows: list[Any], most: int) -> list[Any]:
    """At most `most` rows, evenly spaced, the last always among them."""
    step = -(-len(rows) // most) or 1
    return rows[:-1:step] + rows[-1:]
