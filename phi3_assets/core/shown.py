"""What of an artefact a person is shown, said by its step without knowing by whom or how it is drawn."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "table",  # a list of objects: metric, or JSON file
    "counts",  # an object of numbers: metric
    "histogram",  # edges_tokens and rows: metric
    "learnt",  # pieces of text, learnt or only read: metric; a picture
    "curve",  # loss by step: JSON file; a picture
    "chart",  # the variants' likelihood and exact match: metric; a picture
    "scores",  # the variants' quality, speed and size side by side: metric
    "json",  # anything: metric
    "image",  # PNG file
    "markdown",  # file; its front matter is left out
    "path",  # file, named and not embedded
    "page",  # of `phi3 web`, linked to
]


# What a running step reports, as it is plotted: the UI sorts plots by name, capital letters first.
PROGRESS = {
    "loss": "Loss, nats/token",
    "eval_loss": "Loss on held-out rows, nats/token",
    "fraction": "Progress, %",
}
TIME_LEFT = "Time left"


@dataclass(frozen=True)
class Shown:
    """One thing to show; a file that this artefact does not have is not shown.

    Attributes:
        name: Its heading.
        kind: How it is to be drawn.
        metric: The metric it is made of, or
        file: the file of the artefact.
        page: the kind of page that is about the artefact (`phi3_assets.core.web_address`).
        words: What the drawing needs beside: headings of the two columns of counts, the text for an image.
        columns: Of a table: the keys that are shown and their headings, the most important first.
    """

    name: str
    kind: Kind
    metric: str = ""
    file: str = ""
    page: str = ""
    words: tuple[str, ...] = ()
    columns: tuple[tuple[str, str], ...] = ()
