"""What a step declares is what the UI shows; nothing in the UI's code knows a step by name."""

import ast
from pathlib import Path

import dagster as dg
import pytest

import phi3_assets
from phi3_assets.core.shown import Shown
from phi3_assets.ops.pictures import OPEN_CHARACTERS
from phi3_assets.ops.show import drawings, opened
from phi3_assets.ops.tables import MOST_COLUMNS
from phi3_assets.steps import STEPS

PACKAGE = Path(phi3_assets.__file__).parent
# What every step goes through. Assets, ops and checks are written out by name, so that grep finds a name of the UI.
NEUTRAL = (
    "core",
    "resources",
    "worker",
    "ops/planning.py",
    "ops/running.py",
    "ops/show.py",
    "ops/tables.py",
    "ops/pictures.py",
)


def test_each_kind_is_drawn(tmp_path):
    (tmp_path / "loss.png").write_bytes(b"png")
    (tmp_path / "card.md").write_text("---\nlicence: mit\n---\n# Card\n")
    (tmp_path / "history.json").write_text('[{"step": 1, "loss": 2.0}]')
    metrics = {
        "rows": [{"file": "a.csv", "columns": ["q", "a"]}],
        "reasons": {"duplicate": 2},
        "lengths": {"edges_tokens": [0, 8, 16], "rows": [1, 3]},
        "pieces": [{"text": "hello", "learnt": True}],
        "variants": {"int4": {"nll": 1.0, "exact_match": 0.5}},
    }
    shows = (
        Shown("files", "table", metric="rows"),
        Shown("quarantined", "counts", metric="reasons", words=("reason", "rows")),
        Shown("length", "histogram", metric="lengths"),
        Shown("learnt", "learnt", metric="pieces", words=("learnt text is on yellow",)),
        Shown("all", "json", metric="reasons"),
        Shown("loss", "image", file="loss.png", words=("training loss",)),
        Shown("curve", "curve", file="history.json", words=("training loss",)),
        Shown("by step", "table", file="history.json", columns=(("loss", "loss, nats"), ("eval_loss", "held out"))),
        Shown("chart", "chart", metric="variants", words=("scores",)),
        Shown("card", "markdown", file="card.md"),
        Shown("report", "path", file="card.md"),
        Shown("not there", "image", file="none.png", words=("nothing",)),
    )
    drawn = drawings(shows, metrics, tmp_path)
    assert list(drawn) == [one.name for one in shows][:-1]
    assert [column.name for column in drawn["quarantined"].schema.columns] == ["reason", "rows"]
    assert [column.name for column in drawn["by step"].schema.columns] == ["loss, nats"]  # nothing was held out
    assert drawn["curve"].value.startswith("![training loss](data:image/svg+xml,")
    assert drawn["loss"].value.startswith("![training loss](data:image/png;base64,")
    assert drawn["card"].value.strip() == "# Card"
    assert isinstance(drawn["report"], dg.PathMetadataValue)


def test_a_long_text_stands_open_as_far_as_it_may():
    """The model card was behind a click, whole."""
    text = "\n\n".join(f"Paragraph {number}. {'word ' * 30}" for number in range(20))
    shown = opened("Card", text)
    assert shown["Card, whole"].value == text.strip()
    assert shown["Card"].value.startswith("Paragraph 0.")
    assert shown["Card"].value.endswith("\n\n…")
    assert len(shown["Card"].value) <= OPEN_CHARACTERS
    assert list(opened("Card", "# Short")) == ["Card"]


def test_scores_have_numbers_for_plots_and_a_table_that_fits(tmp_path):
    variants = {
        name: {
            "nll": 0.5,
            "exact_match": 0.25,
            "f1": 0.5,
            "tokens_per_s": 100.0,
            "bytes": 2e6,
            "time_to_first_token_s": None,
        }
        for name in ("base", "int4")
    }
    drawn = drawings([Shown("Comparison", "scores", metric="variants")], {"variants": variants}, tmp_path)
    assert (drawn["Exact match, %: int4"], drawn["Size, MB: base"]) == (25.0, 2.0)
    rows = [record.data for record in drawn["Comparison"].records]
    assert [row["Variant"] for row in rows] == ["int4", "base"]
    assert len(rows[0]) <= MOST_COLUMNS


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_tables_are_narrow(step):
    """The table of files had fifteen columns, and how many rows a file has was the last."""
    for one in step.shows:
        if one.kind == "table":
            assert 0 < len(one.columns) <= MOST_COLUMNS, one.name


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_declaration_has_one_source(step):
    for one in step.shows:
        assert [bool(one.metric), bool(one.file), bool(one.page)].count(True) == 1, one.name


def test_no_branch_on_a_steps_name():
    """A new step touched eight rooms and four branches on its name: what is special about a step stands with it."""
    found = []
    paths = [path for name in NEUTRAL for path in [PACKAGE / name, *(PACKAGE / name).rglob("*.py")]]
    for path in paths:
        if path.is_dir():
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            names = {getattr(side, "attr", getattr(side, "id", "")) for side in sides}
            names |= {side.value for side in sides if isinstance(side, ast.Constant) and isinstance(side.value, str)}
            if names & {*STEPS, *(name.upper() for name in STEPS)}:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert found == []
