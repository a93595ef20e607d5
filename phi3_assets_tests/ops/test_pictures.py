"""Pictures are short enough to stand open in Dagster's UI, whatever is drawn, and nothing of the user's breaks out."""

import xml.dom.minidom
from urllib.parse import unquote

import pytest

from phi3_assets.ops.pictures import OPEN_CHARACTERS, learnt_row, loss_curve, scores_chart, thinned

HOSTILE = 'a (b)) c] ![x](javascript:alert(1)) <script>alert("1")</script> & 50% \\ #1 \x00 é 語\n'
TURNS = [("<|user|>\nWhy?<|end|>\n<|assistant|>\n", False), ("Because.<|end|>\n", True)]


def svg_of(picture):
    """The drawing, as a browser reads it; malformed XML raises."""
    head, _, address = picture.partition("](data:image/svg+xml,")
    assert head.startswith("![")
    assert address.endswith(")")
    # What would end the address of an image in Markdown.
    assert not set(address[:-1]) & set(' ()\n"')
    return xml.dom.minidom.parseString(unquote(address[:-1]))


def texts(picture):
    return ["".join(node.data for node in text.childNodes) for text in svg_of(picture).getElementsByTagName("text")]


@pytest.mark.parametrize(
    "pieces",
    [
        [("<|user|>\n", False), (HOSTILE, False), ("<|end|>", True)],
        [("question " * 500, False), ("answer " * 500, True)],
        TURNS * 60,
        [("\n" * 300, False), ("x", True)],
        [],
    ],
    ids=["hostile", "long", "many turns", "empty lines", "nothing"],
)
def test_a_row_fits_whatever_it_holds(pieces):
    picture = learnt_row(pieces, "learnt")
    assert len(picture) <= OPEN_CHARACTERS
    assert not svg_of(picture).getElementsByTagName("script")


def test_what_is_learnt_is_marked_and_the_rest_is_not():
    picture = learnt_row([("ask", False), ("answer", True)], "learnt")
    marks = svg_of(picture).getElementsByTagName("path")[0].getAttribute("d")
    assert texts(picture) == ["askanswer"]
    assert marks == "M32,15h48"  # from the fourth character on, six of them, 8 px each


@pytest.mark.parametrize("steps", [1, 2, 16, 20_000])
def test_a_loss_curve_fits_and_ends_at_its_last_step(steps):
    points = [
        {"step": at, "loss": 1234.5678 / at, "eval_loss": 1000 / at if at % 3 == 0 else None}
        for at in range(1, steps + 1)
    ]
    picture = loss_curve(points, "training loss")
    assert len(picture) <= OPEN_CHARACTERS
    line = svg_of(picture).getElementsByTagName("path")[1].getAttribute("d")
    assert line.rpartition("L")[2].removeprefix("M").startswith("440,1")  # the last step, low
    assert f"optimiser\N{NO-BREAK SPACE}step\N{NO-BREAK SPACE}{steps}" in texts(picture)


def test_scores_of_all_variants_are_in_the_chart():
    variants = {name: {"nll": 3.0 / at, "exact_match": at / 4} for at, name in enumerate(["base", "merged", "int4"], 1)}
    picture = scores_chart(variants, "scores")
    assert len(picture) <= OPEN_CHARACTERS
    assert {"base\N{NO-BREAK SPACE}3", "25.0%", "int4\N{NO-BREAK SPACE}1", "75.0%"} <= set(texts(picture))


def test_thinning_keeps_both_ends():
    assert thinned(range(100), 4) == [0, 33, 66, 99]
    assert thinned([1, 2], 4) == [1, 2]
