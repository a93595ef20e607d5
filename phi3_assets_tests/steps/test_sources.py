"""A step's code cannot change without its code_version, unless somebody says why the result is the same.

code_version was raised by hand and forgotten twice: GPTQ's damping changed, and an old home said "It stands already".
"""

import json
import shutil
import sys
import threading
from dataclasses import replace
from functools import cache

import pytest

from phi3_assets.steps import ALL_STEPS, LORA_ADAPTER, ONNX_INT4_MODEL
from phi3_assets_tests.data.running import Run, write_model, write_sample
from phi3_assets_tests.steps import record_sources, sources

NOT_CODE = {"<module>", "<lambda>"}  # an import; a lambda belongs to the definition that holds it
RECIPE = {
    "phi3_assets.core.recipe",
    "phi3_assets.core.recipe_data",
    "phi3_assets.core.recipe_model",
    "phi3_assets.core.recipe_file",
    "phi3_assets.core.fields",
}  # what `Run` loads to have parameters


@pytest.mark.parametrize("name", ALL_STEPS)
def test_code_version_stands_for_this_source(name):
    recorded = record_sources.read().get(name)
    assert recorded, f"Run: {record_sources.COMMAND} {name} --new-version"
    wrong = record_sources.complaint(ALL_STEPS[name], recorded, present()[name])
    assert not wrong, wrong


@cache
def present():
    return {name: sources.reached(step) for name, step in ALL_STEPS.items()}


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A copy of the package to change; `changed()` names the steps whose source is another than before."""
    shutil.copytree(
        sources.ROOT / "phi3_assets", tmp_path / "phi3_assets", ignore=shutil.ignore_patterns("__pycache__", "*.png")
    )
    before = present()
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    sources.load.cache_clear()
    yield (
        tmp_path / "phi3_assets",
        lambda: (
            sources.load.cache_clear(),
            {name for name, step in ALL_STEPS.items() if sources.reached(step) != before[name]},
        )[1],
    )
    sources.load.cache_clear()


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "old", "new", "steps"),
    [
        ("olive/int4_configs.py", "DAMPING = 0.05", "DAMPING = 0.01", {"onnx_int4_model"}),
        ("evaluation/general.yaml", "a", "b", {"eval_report", "champion_comparison"}),
        ("evaluation/style.css.j2", "{", "{ color: red;", {"eval_report"}),
        ("evaluation/probe.py", "import json", "import json\nREPEATS = 7", {"eval_report", "champion_comparison"}),
        ("release/smoke_test.py", "import json", "import json\nMORE = 1", {"release_bundle"}),
        ("release/MODEL_CARD.md.j2", "#", "##", {"release_bundle"}),
        ("core/errors.py", "Bad input", "Wrong input", set()),
        ("core/recipe_model.py", "Rank of the adapter.", "Its rank.", set()),
        ("steps/__init__.py", "training loss", "loss in training", set()),
    ],
)
def test_a_change_is_seen_in_the_steps_that_reach_it(tree, file, old, new, steps):
    package, changed = tree
    edit(package / file, old, new)
    assert changed() == steps


def test_prose_is_no_change(tree):
    """Else every mended sentence would void a day's training, and people would learn to wave the check through."""
    package, changed = tree
    edit(package / "steps" / "quantize.py", "Load the model in ONNX Runtime GenAI and generate", "Load it and generate")
    edit(package / "steps" / "quantize.py", "The model's head size is", "Its head size is")
    edit(package / "steps" / "finetune.py", "Resuming from the checkpoint", "Going on from the checkpoint")
    assert changed() == set()


def test_nothing_runs_that_was_not_seen(tmp_path):
    """What the data steps really call, against what reading their source finds."""
    called = set()

    def note(frame, event, _):
        module = frame.f_globals.get("__name__", "")
        code = frame.f_code
        ours = module.startswith("phi3_assets.") and code.co_filename.endswith(".py")  # dataclasses write some
        if event == "call" and ours and code.co_name not in NOT_CODE:
            called.add((module, code.co_qualname.partition(".")[0]))

    run = Run(tmp_path / "home")
    write_sample(run.data)
    model = write_model(tmp_path / "model")
    for step, start in (
        (ALL_STEPS["raw_dataset"], run.ingest),
        (ALL_STEPS["formatted_corpus"], lambda: run.corpus(model)),
    ):
        step.load()
        called.clear()
        threading.setprofile(note)
        sys.setprofile(note)
        try:
            start()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
        seen = sources.definitions(step)
        asked_by_the_test = {place for place in called if place[0] in RECIPE or place[1] in ("Step", "_import")}
        assert called - seen - asked_by_the_test == set()
        assert len(called) > 20


def test_reach_is_narrow():
    """A digest of the whole package would change every day."""
    assert all(3 < len(reach) < 50 for reach in present().values())


def test_complaint_names_what_changed_and_what_to_run():
    recorded = {"code_version": ONNX_INT4_MODEL.code_version, "reached": {"a": "1", "b": "1"}}
    text = record_sources.complaint(ONNX_INT4_MODEL, recorded, {"a": "1", "b": "2", "c": "1"})
    assert "Changed: b, c." in text
    assert 'record_sources onnx_int4_model --same-result "REASON"' in text
    assert record_sources.complaint(ONNX_INT4_MODEL, recorded, recorded["reached"]) == ""
    raised = replace(ONNX_INT4_MODEL, code_version="99")
    assert "code_version 99, and recorded is" in record_sources.complaint(raised, recorded, recorded["reached"])


def test_recording_asks_for_a_version_or_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(record_sources, "RECORD", tmp_path / "record.json")
    name = LORA_ADAPTER.name
    record_sources.record([name], None)
    with pytest.raises(SystemExit, match="raise it in phi3_assets/steps"):
        record_sources.record([name], None)
    record_sources.record([name], "Only a name changed.")
    assert json.loads(record_sources.RECORD.read_text())[name]["same_result"] == ["Only a name changed."]
    monkeypatch.setitem(ALL_STEPS, name, replace(LORA_ADAPTER, code_version="99"))
    with pytest.raises(SystemExit, match="use --new-version"):
        record_sources.record([name], "Only a name changed.")
