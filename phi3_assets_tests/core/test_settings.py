"""Settings: recipe fields that a step's function is handed and that change no identity."""

from dataclasses import replace

from phi3_assets.core.manifest import Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.worker import running
from phi3_assets.worker.step_file import StepFile
from phi3_assets_tests.conftest import raw_dataset_call

CALL = StepCall("lora_adapter", "1", {"lora_r": 8}, {}, {}, {"logging_steps": 5})


def test_a_setting_changes_no_identity():
    """How often the loss was logged was in the identity: asking for a finer curve threw a day's checkpoints away."""
    assert replace(CALL, settings={"logging_steps": 1}).identity == CALL.identity
    assert replace(CALL, settings={}).identity == CALL.identity
    assert replace(CALL, params={"lora_r": 8, "logging_steps": 5}).identity != CALL.identity


def test_the_manifest_tells_the_settings_and_reads_one_without():
    manifest = Manifest(CALL, {}, {})
    assert Manifest.from_json(manifest.to_json(), "here").call.settings == {"logging_steps": 5}
    older = (
        manifest.to_json()
        .replace('"settings": {\n   "logging_steps": 5\n  }', "")
        .replace('"libraries": {},', '"libraries": {}')
    )
    assert "settings" not in older
    assert Manifest.from_json(older, "here").call.identity == CALL.identity


def test_settings_reach_the_function(store, home, monkeypatch):
    """Through the step file, as to a machine elsewhere."""
    call, _ = raw_dataset_call(store)
    call = replace(call, settings={"logging_steps": 7})
    seen = {}

    def step(ctx):
        seen.update(settings=ctx.settings, params=ctx.params)
        (ctx.output / "file").write_text("")
        return {}

    monkeypatch.setattr(type(running.step_of(call.step)), "load", lambda self: step)
    folders = {name: str(home / "work" / name) for name in ("output", "work", "cache")}
    text = StepFile(call=call, inputs={}, execution="test", **folders).to_json()
    made = running.run_step(StepFile.from_json(text), print, lambda **numbers: None)
    assert seen["settings"] == {"logging_steps": 7}
    assert "logging_steps" not in seen["params"]
    assert made.call.identity == call.identity
