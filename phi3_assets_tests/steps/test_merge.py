"""Merging: merged is base plus adapter, and the files say nothing of this machine."""

import shutil
from pathlib import Path

import pytest

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.steps import BASE_MODEL, LORA_ADAPTER, MERGED_MODEL
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep, write_corpus


def test_merged_is_base_plus_adapter(tiny_merged: Made) -> None:
    metrics = tiny_merged.metrics
    assert metrics["max_logit_difference"] <= metrics["logit_tolerance"]
    assert metrics["max_logit_change"] > 100 * metrics["max_logit_difference"]


def test_merging_tells_how_far_it_is(tiny_merged: Made) -> None:
    fractions = [one["fraction"] for one in tiny_merged.progress]
    assert fractions == sorted(fractions)
    assert len(fractions) == 5
    assert fractions[-1] == 1


def test_merged_keeps_the_tokenizer_of_the_base(tiny_chain: Chain) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tiny_chain.merged_model / name).read_bytes() == (tiny_chain.base_model / name).read_bytes()


def test_untied_embeddings_merge_too(run_step: RunStep, tmp_path: Path) -> None:
    base = run_step(BASE_MODEL, base_model="random:phi3-tiny-untied")
    write_corpus(tmp_path, base.path)
    adapter = run_step(LORA_ADAPTER, {"base_model": base.path, "formatted_corpus": tmp_path})
    merged = run_step(MERGED_MODEL, {"base_model": base.path, "lora_adapter": adapter.path})
    assert merged.metrics["parameters"] == base.metrics["parameters"] == 139_584


def test_adapter_that_changes_nothing_is_an_error(tiny_chain: Chain, run_step: RunStep, tmp_path: Path) -> None:
    """The merge must be seen to have done something: adapters under wrong names load silently as the base model."""
    from safetensors.torch import load_file, save_file

    adapter = tmp_path / "adapter"
    shutil.copytree(tiny_chain.lora_adapter, adapter)
    weights = load_file(adapter / "adapter_model.safetensors")
    without_b = {name: tensor * ("lora_B" not in name) for name, tensor in weights.items()}
    save_file(without_b, adapter / "adapter_model.safetensors")
    with pytest.raises(RuntimeError, match="Merging changed nothing"):
        run_step(MERGED_MODEL, {"base_model": tiny_chain.base_model, "lora_adapter": adapter})


def test_memory_is_forecast(tiny_merged: Made) -> None:
    peak, forecast = (tiny_merged.metrics[name] for name in ("peak_memory_bytes", "estimated_memory_bytes"))
    assert peak / TOLERANCE <= forecast <= peak * TOLERANCE


def test_too_little_memory_is_refused_beforehand(
    tiny_chain: Chain, run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: -memory.held_bytes())
    with pytest.raises(UserError, match=r"Merging needs about .* are available. Run the step on a machine with more"):
        run_step(MERGED_MODEL, tiny_chain.inputs("base_model", "lora_adapter"))
