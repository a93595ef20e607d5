"""Pictures that stand open in Dagster's UI: SVG so small that Dagster does not put it behind a click.

The UI (1.13) draws Markdown of less than 1,000 characters where it stands, and longer ones behind "[Show Markdown]". An
image in Markdown may be a data address, so a drawing that is short enough stands open. Each is made to fit; what holds
all the detail is a file of the artefact.
"""

import html
from collections.abc import Mapping, Sequence
from typing import Any

OPEN_CHARACTERS = 999
"""The longest Markdown that the UI shows at once."""
WIDTH_PX = 448
"""What a value has in the table of a window of 1,500 pixels."""
COLUMNS = 54
"""Characters on a line of a training row."""
CHARACTER_PX, LINE_PX = 8, 20
MOST_POINTS = 40
# In the address of an image these would end it, be read as something else, or be taken for an escape.
_ESCAPED = {" ": "%20", "#": "%23", "%": "%25", "&": "%26", "\\": "%5C", '"': "%22", "(": "%28", ")": "%29"}
_SPACE = "\N{NO-BREAK SPACE}"  # several in a row stay apart, and it is one character of the address
_VARIANT_PX, _PANEL_PX = 25, WIDTH_PX // 2


def image(svg: str, alternative: str) -> str:
    """A drawing as Markdown."""
    return f"![{alternative}](data:image/svg+xml,{''.join(_ESCAPED.get(one, one) for one in svg)})"


def learnt_row(pieces: Sequence[tuple[str, bool]], alternative: str) -> str:
    """A training row: what is learnt stands on yellow. Of a long one each stretch is shown with its middle left out.

    Args:
        pieces: Text, and whether it is learnt.
        alternative: The picture in words.
    """
    stretches: list[tuple[str, bool]] = []
    for text, learnt in pieces:
        if stretches and stretches[-1][1] == learnt:
            stretches[-1] = (stretches[-1][0] + text, learnt)
        else:
            stretches.append((text, learnt))
    most = max((len(text) for text, _ in stretches), default=0)
    while len(drawn := image(_row_svg([(_middle_out(text, most), on) for text, on in stretches]), alternative)) > (
        OPEN_CHARACTERS
    ):
        most -= max(1, most // 10)
        if most < CHARACTER_PX:  # a conversation of dozens of turns
            stretches, most = stretches[:-1], max(len(text) for text, _ in stretches)
    return drawn


def loss_curve(points: Sequence[Mapping[str, Any]], alternative: str) -> str:
    """Loss by optimiser step; the loss on held-out rows, where there are any, as dots."""
    most = MOST_POINTS
    while len(drawn := image(_curve_svg(points, most), alternative)) > OPEN_CHARACTERS:
        most -= 4
    return drawn


def scores_chart(variants: Mapping[str, Mapping[str, Any]], alternative: str) -> str:
    """Likelihood and exact match of the variants as bars, side by side."""
    worst = max(float(one["nll"]) for one in variants.values()) or 1.0
    rows, bars = "", ["", ""]
    for number, (name, one) in enumerate(variants.items()):
        y = 40 + number * _VARIANT_PX
        nll, right = float(one["nll"]), float(one["exact_match"])
        rows += f"<text x='5' y='{y}'>{_text(f'{name} {nll:.3g}')}</text>"
        rows += f"<text x='{_PANEL_PX + 10}' y='{y}'>{_text(f'{right:.1%}')}</text>"
        bars[0] += f"M90,{y - 4}h{round(120 * nll / worst)}"
        bars[1] += f"M{_PANEL_PX + 55},{y - 4}h{round(150 * right)}"
    return image(
        f"{_opening(WIDTH_PX, 30 + len(variants) * _VARIANT_PX)}"
        f"<text x='5' y='14'>{_text('NLL, nats/token: less is better')}</text>"
        f"<text x='{_PANEL_PX + 10}' y='14'>{_text('exact match: more is better')}</text>"
        f"{rows}<path d='{bars[0]}' stroke='steelblue' stroke-width='14'/>"
        f"<path d='{bars[1]}' stroke='seagreen' stroke-width='14'/></svg>",
        alternative,
    )


def thinned(rows: Sequence[Any], most: int) -> list[Any]:
    """At most `most` rows, evenly spaced, the last always among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(number * (len(rows) - 1) / (most - 1))] for number in range(most)]


def _curve_svg(points: Sequence[Mapping[str, Any]], most: int) -> str:
    curve = [(one["step"], one["loss"]) for one in thinned(points, most)]
    every = [(one["step"], one["eval_loss"]) for one in points if one.get("eval_loss") is not None]
    held_out = thinned(every, most // 4)
    low, high = min(loss for _, loss in [*curve, *held_out]), max(loss for _, loss in [*curve, *held_out])
    last = curve[-1][0]

    def place(step: float, loss: float) -> tuple[int, int]:
        return round(40 + 400 * step / last), round(110 - 90 * (loss - low) / ((high - low) or 1))

    line = "L".join(f"{x},{y}" for x, y in (place(*one) for one in curve))
    dots = "".join(f"M{x},{y}h0" for x, y in (place(*one) for one in held_out))
    told = f"loss, nats per token{'; orange: on held-out rows' if dots else ''}"
    return (
        f"{_opening(WIDTH_PX, 140)}<path d='M40,15V110H440' stroke='gray' fill='none'/>"
        f"<path d='M{line}' stroke='steelblue' stroke-width='2' fill='none'/>"
        + (f"<path d='{dots}' stroke='darkorange' stroke-width='7' stroke-linecap='round'/>" if dots else "")
        + f"<text x='50' y='14'>{_text(told)}</text><text x='5' y='24'>{high:.3g}</text>"
        f"<text x='5' y='114'>{low:.3g}</text><text x='320' y='130'>{_text(f'optimiser step {last}')}</text></svg>"
    )


def _row_svg(stretches: Sequence[tuple[str, bool]]) -> str:
    lines, marks, column = [""], "", 0
    for text, learnt in stretches:
        for part in text.replace("\n", "↵\n").splitlines(keepends=True):
            rest = part.removesuffix("\n")
            while rest:
                if column == COLUMNS:
                    lines, column = [*lines, ""], 0
                fits, rest = rest[: COLUMNS - column], rest[COLUMNS - column :]
                if learnt:
                    x, y = (1 + column) * CHARACTER_PX, len(lines) * LINE_PX - 5
                    marks += f"M{x},{y}h{len(fits) * CHARACTER_PX}"
                lines[-1] += fits
                column += len(fits)
            if part.endswith("\n"):
                lines, column = [*lines, ""], 0
    drawn = "".join(f"<text x='8' y='{LINE_PX * at}'>{_text(line)}</text>" for at, line in enumerate(lines, 1) if line)
    size = WIDTH_PX, (len(lines) + 1) * LINE_PX
    # 13.33 px: the characters of a fixed-width font are 0.6 as wide as high, so 8 px here.
    head = _opening(*size, "monospace", "13.33")
    return f"{head}<path d='{marks}' stroke='gold' stroke-width='{LINE_PX}'/>{drawn}</svg>"


def _opening(width: int, height: int, font: str = "sans-serif", size: str = "12") -> str:
    # White beneath: in the UI's dark theme black text would stand on black.
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' style='background:white' "
        f"font-family='{font}' font-size='{size}'>"
    )


def _text(text: str) -> str:
    printable = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
    return html.escape(printable, quote=False).replace(" ", _SPACE)


def _middle_out(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 :]}"
