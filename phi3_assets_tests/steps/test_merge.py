"""Merging: merged is base plus adapter, and the files say nothing of this machine."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.evaluation import torch_scorer
from phi3_assets.models import merging
from phi3_assets.models.merging import Merge
from phi3_assets.olive.passes import run_pass
from phi3_assets.steps import BASE_MODEL, LORA_ADAPTER, MERGED_MODEL
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep, write_corpus


def test_merged_is_base_plus_adapter(tiny_merged: Made) -> None:
    metrics = tiny_merged.metrics
    assert metrics["layers_changed"] == 4
    assert metrics["least_change_kept"] == pytest.approx(1, abs=1e-5)
    assert 0.001 < metrics["largest_change"] < 1


def test_merging_tells_how_far_it_is(tiny_merged: Made) -> None:
    fractions = [one["fraction"] for one in tiny_merged.progress]
    assert fractions == sorted(fractions)
    assert len(fractions) == 3
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


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        # One of 32 layers moved the logits by less than the 5 % that were allowed in bfloat16.
        ("layers.1.self_attn.o_proj", r"changes 0\.0% are in model\.layers\.1\.self_attn\.o_proj\.weight of"),
        ("layers.0.mlp.down_proj", r"Merging changed model\.layers\.0\.mlp\.down_proj\.weight, which the"),
    ],
)
def test_a_layer_left_out_or_changed_beside_is_named(
    wrong: str, message: str, tiny_chain: Chain, run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Merge._tensor

    def tensor(self: Merge, name: str) -> Any:
        if name != f"model.{wrong}.weight":
            return real(self, name)
        return self._before(name) if name in self.adapted else self._before(name) * 1.001

    monkeypatch.setattr(Merge, "_tensor", tensor)
    with pytest.raises(RuntimeError, match=message):
        run_step(MERGED_MODEL, tiny_chain.inputs("base_model", "lora_adapter"))


@pytest.fixture
def halved(tiny_chain: Chain, tmp_path: Path) -> Callable[[float], dict[str, Path]]:
    """The base model in bfloat16, and the adapter with its changes scaled."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    base, adapter = tmp_path / "base", tmp_path / "adapter"
    shutil.copytree(tiny_chain.base_model, base)
    shutil.copytree(tiny_chain.lora_adapter, adapter)
    AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16").save_pretrained(base)
    weights = load_file(adapter / "adapter_model.safetensors")

    def scaled(scale: float) -> dict[str, Path]:
        scaled = {name: tensor * (scale if "lora_B" in name else 1) for name, tensor in weights.items()}
        save_file(scaled, adapter / "adapter_model.safetensors")
        return {"base_model": base, "lora_adapter": adapter}

    return scaled


def test_changes_that_bfloat16_tells_apart_are_rounded_to_the_nearest(
    halved: Callable[[float], dict[str, Path]], run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "round_by_chance", None)
    metrics = run_step(MERGED_MODEL, halved(1)).metrics
    assert 0.98 < metrics["least_change_kept"] < 1.02
    assert 0.001 < metrics["largest_rounding"] < 0.5


def test_changes_that_it_cannot_tell_apart_arrive_by_chance(
    halved: Callable[[float], dict[str, Path]], run_step: RunStep, tmp_path: Path
) -> None:
    """Rounded to the nearest, as Olive merges, most of a small change is lost."""
    models = halved(0.0025)
    made = run_step(MERGED_MODEL, models)
    assert made.metrics["least_change_kept"] == pytest.approx(1, abs=0.4)  # of layers of 64 by 64
    assert any("Rounding to bfloat16 is up to" in line for line in made.log)
    again = run_step(MERGED_MODEL, models)
    assert (again.path / "model.safetensors").read_bytes() == (made.path / "model.safetensors").read_bytes()
    run_pass("MergeAdapterWeights", {}, models["base_model"], tmp_path / "nearest", adapter=models["lora_adapter"])
    assert Merge(models["base_model"], models["lora_adapter"]).kept(tmp_path / "nearest").least < 0.5


def test_merged_onto_what_qlora_trained_on(inputs: dict[str, Path], run_step: RunStep) -> None:
    """Merged then answers as the 4-bit model with its adapter did in training; onto the full one it does not."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    qlora = {"method": "qlora", "compute_dtype": "float32", "torch_dtype": "float32"}
    adapter = run_step(LORA_ADAPTER, inputs, **qlora).path
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype="float32"
    )
    trained = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(inputs["base_model"], quantization_config=four_bit), adapter
    ).eval()
    ids = torch.arange(5, 60)[None]
    with torch.no_grad():
        wanted = trained(ids).logits
        error = {}
        for onto in ("full", "trained"):
            models = {"base_model": inputs["base_model"], "lora_adapter": adapter}
            merged = run_step(MERGED_MODEL, models, merge_onto=onto)
            assert merged.metrics["least_change_kept"] == pytest.approx(1, abs=1e-4)
            error[onto] = float((AutoModelForCausalLM.from_pretrained(merged.path)(ids).logits - wanted).abs().max())
        # And as an evaluation lays the adapter over the base model.
        laid_over = torch_scorer.load_model(inputs["base_model"], adapter, on_gpu=False)
        error["laid over"] = float((laid_over(ids).logits - wanted).abs().max())
    assert max(error["trained"], error["laid over"]) < 0.05 * error["full"]


def test_memory_is_forecast(tiny_merged: Made) -> None:
    peak, forecast = (tiny_merged.metrics[name] for name in ("peak_memory_bytes", "estimated_memory_bytes"))
    assert peak / TOLERANCE <= forecast <= peak * TOLERANCE


def test_too_little_memory_is_refused_beforehand(
    tiny_chain: Chain, run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: -memory.held_bytes())
    with pytest.raises(UserError, match=r"Merging needs about .* are available. Run the step on a machine with more"):
        run_step(MERGED_MODEL, tiny_chain.inputs("base_model", "lora_adapter"))
