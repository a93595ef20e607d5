"""What a person sees of an artefact in the Dagster UI: metadata made from its manifest and files."""

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import Manifest
from phi3_assets.core.shown import Shown
from phi3_assets.core.web_address import page_url
from phi3_assets.evaluation.present import plotted, score_rows
from phi3_assets.ops.pictures import OPEN_CHARACTERS, learnt_row, loss_curve, scores_chart, thinned
from phi3_assets.ops.tables import MOST_ROWS, counts_table, histogram_table, table
from phi3_assets.resources.origin import Origin
from phi3_assets.steps import step_of

if TYPE_CHECKING:
    from phi3_assets.evaluation.changes import Changes

Metadata = dict[str, Any]
# The event log is a database; beyond this a picture is named, not embedded.
LARGEST_PLOT_BYTES = 300_000


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
        **special,
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
    drawn: Metadata = {}
    for one in shows:
        if one.kind == "page":
            continue  # it is no file of the artefact's
        if one.metric:
            drawn |= _of_metric(one, metrics[one.metric])
        elif (directory / one.file).exists():
            drawn |= _of_file(one, directory / one.file)
    return drawn


def _of_metric(shown: Shown, value: Any) -> Metadata:
    match shown.kind:
        case "table":
            return _short_table(shown, value)
        case "counts":
            return {shown.name: counts_table(value, *shown.words)}
        case "histogram":
            return {shown.name: histogram_table(value)}
        case "learnt":
            pieces = [(piece["text"], piece["learnt"]) for piece in value]
            return {shown.name: dg.MetadataValue.md(learnt_row(pieces, *shown.words))}
        case "chart":
            return {shown.name: dg.MetadataValue.md(scores_chart(value, *shown.words))}
        case "scores":
            return {shown.name: table(score_rows(value)), **plotted(value)}
        case "json":
            return {shown.name: dg.MetadataValue.json(value)}
    raise AssertionError(f"{shown.name}: a metric cannot be shown as {shown.kind}")


def _of_file(shown: Shown, path: Path) -> Metadata:
    match shown.kind:
        case "table":
            return _short_table(shown, json.loads(path.read_text(encoding="utf-8")))
        case "curve":
            points = json.loads(path.read_text(encoding="utf-8"))
            return {shown.name: dg.MetadataValue.md(loss_curve(points, *shown.words))}
        case "image":
            return {shown.name: plot(path, *shown.words)}
        case "markdown":
            return opened(shown.name, path.read_text(encoding="utf-8").split("---", 2)[-1])
        case "path":
            return {shown.name: dg.MetadataValue.path(str(path))}
    raise AssertionError(f"{shown.name}: a file cannot be shown as {shown.kind}")


def _short_table(shown: Shown, rows: list[Any]) -> Metadata:
    more = len(rows) - MOST_ROWS
    told = {f"rows of {shown.name} that are not shown": more} if more > 0 else {}
    return {shown.name: table(thinned(rows, MOST_ROWS), shown.columns), **told}


def opened(name: str, text: str) -> Metadata:
    """Markdown that stands open; of a long one its beginning does, and the whole is a click away."""
    text = text.strip()
    if len(text) <= OPEN_CHARACTERS:
        return {name: dg.MetadataValue.md(text)}
    beginning = text[: OPEN_CHARACTERS - 4].rpartition("\n\n")[0]
    return {name: dg.MetadataValue.md(f"{beginning}\n\n…"), f"{name}, whole": dg.MetadataValue.md(text)}


def origin_metadata(origin: Origin) -> Metadata:
    """Where a release comes from: its artefacts and the user's files, as tables."""
    made = [
        {"artefact": one.kind, "identity": one.identity[:SHORT], "content": one.digest, "code": one.code_version}
        for one in origin.made
    ]
    files = [{"file": one.file, "rows": one.rows, "content": one.sha256} for one in origin.sources]
    more = len(files) - MOST_ROWS
    told = {"source files that are not shown: phi3 lineage": more} if more > 0 else {}
    return {"lineage": table(made), "source files": table(files[:MOST_ROWS]), **told}


def changed(changes: "Changes") -> Metadata:
    """What changed since the champion: the scores as a table that stands open, the rest a click away."""
    from phi3_assets.evaluation.changes import markdown

    heads = ("int4", "champion", "this release", "difference (95 % interval)")
    scores = table([dict(zip(heads, row, strict=True)) for row in changes.scores])
    return {"What changed since the champion": scores, "what changed, in full": dg.MetadataValue.md(markdown(changes))}


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
    return dg.MetadataValue.md(
        f"![{alternative}](data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()})"
    )
