"""What a step declares is what the UI shows; nothing in the UI's code knows a step by name."""

import ast
from pathlib import Path

import dagster as dg
import pytest

import phi3_assets
from phi3_assets.core.shown import Shown
from phi3_assets.ops.show import drawings
from phi3_assets.steps import STEPS

PACKAGE = Path(phi3_assets.__file__).parent
# What every step goes through. Assets, ops and checks are written out by name, so that grep finds a name of the UI.
NEUTRAL = ("core", "resources", "worker", "ops/planning.py", "ops/running.py", "ops/show.py")


def test_each_kind_is_drawn(tmp_path):
    (tmp_path / "loss.png").write_bytes(b"png")
    (tmp_path / "card.md").write_text("---\nlicence: mit\n---\n# Card\n")
    (tmp_path / "history.json").write_text('[{"step": 1, "loss": 2.0}]')
    metrics = {
        "rows": [{"file": "a.csv", "columns": ["q", "a"]}],
        "reasons": {"duplicate": 2},
        "lengths": {"edges_tokens": [0, 8, 16], "rows": [1, 3]},
        "pieces": [{"text": "hello", "learnt": True}],
    }
    shows = (
        Shown("files", "table", metric="rows"),
        Shown("quarantined", "counts", metric="reasons", words=("reason", "rows")),
        Shown("length", "histogram", metric="lengths"),
        Shown("learnt", "learnt", metric="pieces", words=("learnt text is on yellow",)),
        Shown("all", "json", metric="reasons"),
        Shown("loss", "image", file="loss.png", words=("training loss",)),
        Shown("curve", "table", file="history.json"),
        Shown("card", "markdown", file="card.md"),
        Shown("report", "path", file="card.md"),
        Shown("not there", "image", file="none.png", words=("nothing",)),
    )
    drawn = drawings(shows, metrics, tmp_path)
    assert list(drawn) == [one.name for one in shows][:-1]
    assert [column.name for column in drawn["quarantined"].schema.columns] == ["reason", "rows"]
    assert drawn["loss"].value.startswith("![training loss](data:image/png;base64,")
    assert drawn["card"].value.strip() == "# Card"
    assert isinstance(drawn["report"], dg.PathMetadataValue)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_every_declaration_has_one_source(step):
    for one in step.shows:
        assert bool(one.metric) != bool(one.file), one.name


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
