"""Plots of the report (SVG text) and of the Dagster UI (one small PNG). Same input, same bytes.

Colours are Okabe and Ito's, told apart also without colour vision; on grey paper marker shapes and labels do it.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from phi3_assets.evaluation.present import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"base": "#7a7a7a", "adapter": "#E69F00", "merged": "#0072B2", "int4": "#009E73"}
MARKERS = {"base": "s", "adapter": "^", "merged": "o", "int4": "D"}
# Of the names in size_svg: offset in points and alignment.
LABEL_PLACES = {"base": ((0, -10), "center"), "merged": ((-8, 0), "right")}
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "svg.hashsalt": "phi3",  # ids in the SVG would otherwise be random
    "svg.fonttype": "path",
}


Numbers = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Sequence[float]]]


def scores_png(variants: Numbers, intervals: Intervals) -> bytes:
    """Likelihood and exact match of the variants with their 95 % intervals, side by side."""
    with _figure(7.6, 2.5, columns=2) as (figure, axes):
        _bars(axes[0], variants, intervals, "nll", "NLL, nats per token (less is better)", "{:.2f}")
        _bars(axes[1], variants, intervals, "exact_match", "Exact match (more is better)", "{:.0%}", names=False)
        return _save(figure, "png")


def scores_svg(variants: Numbers, intervals: Intervals) -> str:
    """The same two panels for the report, with token F1 beside."""
    with _figure(9.6, 2.4, columns=3) as (figure, axes):
        _bars(axes[0], variants, intervals, "nll", "NLL, nats per token ↓", "{:.2f}")
        _bars(axes[1], variants, intervals, "exact_match", "Exact match ↑", "{:.0%}", names=False)
        _bars(axes[2], variants, intervals, "f1", "Token F1 ↑", "{:.0%}", names=False)
        return _save(figure, "svg").decode()


def loss_svg(history: Sequence[Mapping[str, Any]]) -> str:
    """Training loss by optimiser step."""
    points = [(row["step"], row["loss"]) for row in history if row.get("loss") is not None]
    with _figure(3.9, 2.7) as (figure, axes):
        axes.plot(*zip(*points, strict=True), color=COLOURS["merged"], marker="o", markersize=3, linewidth=1.4)
        axes.set_title("Training loss")
        axes.set_xlabel("optimiser step")
        axes.set_ylabel("nats per token")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True)
        return _save(figure, "svg").decode()


def size_svg(variants: Numbers) -> str:
    """Quality against what a variant weighs on disk."""
    with _figure(3.9, 2.7) as (figure, axes):
        for name, numbers in variants.items():
            x, y = numbers["bytes"] / 1e6, numbers["nll"]
            axes.scatter(x, y, color=COLOURS[name], marker=MARKERS[name], s=60, zorder=3)
            # adapter and merged score and weigh alike, and their names would be written over each other
            place, across = LABEL_PLACES.get(name, ((0, 9), "center"))
            axes.annotate(LABELS[name], (x, y), place, textcoords="offset points", ha=across, va="center", fontsize=8)
        axes.set_title("Quality against size")
        axes.set_xlabel("MB on disk")
        axes.set_ylabel("NLL, nats per token ↓")
        axes.set_xlim(left=0, right=1.15 * axes.get_xlim()[1])
        top = 1.2 * max(axes.get_ylim()[1], 0.1)
        axes.set_ylim(bottom=-0.06 * top, top=top)  # a marker at zero is shown whole
        axes.grid(visible=True)
        return _save(figure, "svg").decode()


def length_svg(records: Sequence[Mapping[str, Any]]) -> str:
    """Token F1 of each item against the length of its reference answer, base and int4."""
    with _figure(3.9, 2.7) as (figure, axes):
        for name in ("base", "int4"):
            axes.scatter(
                [record["reference_tokens"] for record in records],
                [record["variants"][name]["f1"] for record in records],
                facecolors=COLOURS[name] if name == "int4" else "none",
                edgecolors=COLOURS[name],
                marker=MARKERS[name],
                s=20,
                alpha=0.7,
                linewidths=0.9,
                label=LABELS[name],
            )
        axes.set_title("Length against score")
        axes.set_xlabel("tokens of the reference answer")
        axes.set_ylabel("token F1 ↑")
        axes.set_ylim(-0.04, 1.04)
        axes.grid(visible=True)
        axes.legend(
            frameon=False,
            fontsize=8,
            loc="lower right",
            bbox_to_anchor=(1.03, 0.97),
            ncols=2,
            handletextpad=0,
            columnspacing=0.6,
            borderpad=0,
        )
        return _save(figure, "svg").decode()


def _bars(
    axes: "Axes",
    variants: Numbers,
    intervals: Intervals,
    metric: str,
    title: str,
    form: str,
    *,
    names: bool = True,
) -> None:
    values = [numbers[metric] for numbers in variants.values()]
    ends = [intervals[name][metric] for name in variants]
    places = range(len(values))
    axes.barh(places, values, height=0.62, color=[COLOURS[name] for name in variants])
    axes.errorbar(
        values,
        places,
        xerr=[
            [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ],
        fmt="none",
        ecolor="#222222",
        elinewidth=1,
        capsize=3,
    )
    room = 1.0 if form.endswith("%}") else max(high for _, high in ends) or 1.0
    for place, value, (_, high) in zip(places, values, ends, strict=True):
        axes.text(max(value, high) + 0.02 * room, place, form.format(value), va="center", fontsize=8)
    axes.set_xlim(0, 1.16 * room)
    if form.endswith("%}"):
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])
    axes.set_yticks(places, [LABELS[name] for name in variants] if names else [""] * len(values))
    axes.invert_yaxis()
    axes.set_title(title)
    axes.grid(visible=True, axis="x")
    axes.tick_params(axis="y", length=0)


class _figure:  # noqa: N801 - a context manager used like a function
    """A figure in the house style, closed in the end; no display and no global state."""

    def __init__(self, width: float, height: float, columns: int = 1) -> None:
        self.size, self.columns = (width, height), columns

    def __enter__(self) -> tuple["Figure", Any]:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        self.style = mpl.rc_context(STYLE)
        self.style.__enter__()
        figure = Figure(figsize=self.size, layout="constrained")
        return figure, figure.subplots(1, self.columns)

    def __exit__(self, *error: Any) -> None:
        self.style.__exit__(*error)


def _save(figure: "Figure", kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=110, metadata={"Date": None} if kind == "svg" else {"Software": None})
    data = buffer.getvalue()
    # The XML prolog does not belong into the middle of an HTML page.
    return data[data.index(b"<svg") :] if kind == "svg" else data
