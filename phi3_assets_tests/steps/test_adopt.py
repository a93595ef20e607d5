"""Adapters that are not trained here: the user's own, checked against the base model, and none at all."""

import json
import shutil
from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.models.four_bit import FILE, FourBit
from phi3_assets.steps import LORA_ADAPTER, MERGED_MODEL, ONNX_INT4_MODEL
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep


def test_adapter_of_the_user_gives_the_same_merged_model(
    tiny_chain: Chain, tiny_merged: Made, run_step: RunStep, tmp_path: Path
) -> None:
    given = shutil.copytree(tiny_chain.lora_adapter, tmp_path / "given")
    config = json.loads((given / "adapter_config.json").read_text())
    (given / "adapter_config.json").write_text(
        json.dumps(
            {**config, "base_model_name_or_path": "/somewhere/else", "auto_mapping": {"parent_library": "antigravity"}}
        )
    )
    inputs = {**tiny_chain.inputs("base_model", "formatted_corpus"), "adapter_directory": given}
    adopted = run_step(LORA_ADAPTER, inputs)
    assert adopted.metrics["method"] == "given"
    assert adopted.metrics["b_norm_min"] > 0
    assert "/somewhere" not in (adopted.path / "adapter_config.json").read_text()
    assert "antigravity" not in (adopted.path / "adapter_config.json").read_text()
    merged = run_step(MERGED_MODEL, {"base_model": tiny_chain.base_model, "lora_adapter": adopted.path})
    name = "model.safetensors"
    assert (merged.path / name).read_bytes() == (tiny_merged.path / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: (d / "adapter_config.json").unlink(), "no adapter_config.json, so it is no PEFT adapter"),
        (
            lambda d: (d / "adapter_model.safetensors").rename(d / "adapter_model.bin"),
            "adapter_model.bin can run code when opened and is refused",
        ),
        (lambda d: (d / "adapter_config.json").write_text('{"peft_type": "IA3"}'), "of type IA3"),
        (lambda d: (d / "adapter_config.json").write_text("[]"), "of type None"),
        (lambda d: (d / "adapter_config.json").write_text("[" * 200_000), "nested too deeply"),
        # PEFT imports the module of this name.
        (lambda d: _set(d, megatron_config={"a": 1}, megatron_core="antigravity"), "sets 'megatron_"),
        (lambda d: _set(d, layer_replication=[[0, 1], [0, 1]]), "sets 'layer_replication'"),
        (lambda d: _set(d, something_new=True), "sets 'something_new'"),
        (lambda d: _rename(d, "qkv_proj", "q_proj"), "changes model.layers.0.self_attn.q_proj, which the base model"),
    ],
)
def test_directory_that_is_no_fitting_adapter_is_refused(change, said, tiny_chain, run_step, tmp_path) -> None:
    given = shutil.copytree(tiny_chain.lora_adapter, tmp_path / "given")
    change(given)
    inputs = {**tiny_chain.inputs("base_model", "formatted_corpus"), "adapter_directory": given}
    with pytest.raises(UserError, match=f"adapter_path: .*{said}"):
        run_step(LORA_ADAPTER, inputs)


def test_adapter_of_a_model_of_another_size_is_refused(tiny_chain: Chain, run_step: RunStep, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    given = shutil.copytree(tiny_chain.lora_adapter, tmp_path / "given")
    file = given / "adapter_model.safetensors"
    save_file({name: tensor[:, :-8] if "lora_A" in name else tensor for name, tensor in load_file(file).items()}, file)
    inputs = {**tiny_chain.inputs("base_model", "formatted_corpus"), "adapter_directory": given}
    with pytest.raises(UserError, match="trained on another model"):
        run_step(LORA_ADAPTER, inputs)


def test_what_an_adapter_was_trained_on_comes_along(tiny_chain: Chain, run_step: RunStep, tmp_path: Path) -> None:
    """Merged onto the full base model, one of QLoRA loses much of what it learnt."""
    given = shutil.copytree(tiny_chain.lora_adapter, tmp_path / "given")
    trained_on = FourBit(quant_type="nf4", double_quant=True, torch_dtype="float32")
    trained_on.write(given)
    adopted = run_step(
        LORA_ADAPTER, {**tiny_chain.inputs("base_model", "formatted_corpus"), "adapter_directory": given}
    )
    assert FourBit.read(adopted.path) == trained_on


@pytest.mark.parametrize("said", ['{"quant_type": "nf4"}', '{"quant_type": "int3"}', "[]", "{", '{"evil": 1}'])
def test_what_it_was_trained_on_is_read_with_care(said: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(said)
    with pytest.raises(UserError, match=r"four_bit\.json does not say what the adapter was trained on"):
        FourBit.read(tmp_path)


def test_method_none_quantises_the_base_model(tiny_base: Made, tiny_corpus: Path, run_step: RunStep) -> None:
    adapter = run_step(LORA_ADAPTER, {"base_model": tiny_base.path, "formatted_corpus": tiny_corpus}, method="none")
    assert adapter.metrics["trainable_parameters"] == 0
    merged = run_step(MERGED_MODEL, {"base_model": tiny_base.path, "lora_adapter": adapter.path})
    weights = "model.safetensors"
    assert (merged.path / weights).read_bytes() == (tiny_base.path / weights).read_bytes()
    int4 = run_step(ONNX_INT4_MODEL, {"merged_model": merged.path, "formatted_corpus": tiny_corpus})
    assert int4.metrics["generated_tokens"] > 0


def test_adapter_of_method_none_is_one_that_peft_reads(tiny_base: Made, tiny_corpus: Path, run_step: RunStep) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    adapter = run_step(LORA_ADAPTER, {"base_model": tiny_base.path, "formatted_corpus": tiny_corpus}, method="none")
    ids = torch.arange(5)[None]
    base = AutoModelForCausalLM.from_pretrained(tiny_base.path).eval()
    with torch.inference_mode():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, adapter.path).eval()(ids).logits
    assert torch.equal(before, after)


def test_a_link_out_of_an_adapters_folder_is_refused(tiny_chain: Chain, run_step: RunStep, tmp_path: Path) -> None:
    given = shutil.copytree(tiny_chain.lora_adapter, tmp_path / "given")
    (given / "adapter_model.safetensors").rename(tmp_path / "away")
    (given / "adapter_model.safetensors").symlink_to(tmp_path / "away")
    inputs = {**tiny_chain.inputs("base_model", "formatted_corpus"), "adapter_directory": given}
    with pytest.raises(UserError, match="Adapter directory .*is a link that leads out"):
        run_step(LORA_ADAPTER, inputs)


def _set(directory: Path, **more: object) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **more}))


def _rename(directory: Path, old: str, new: str) -> None:
    from safetensors.numpy import load_file, save_file

    file = directory / "adapter_model.safetensors"
    save_file({name.replace(old, new): tensor for name, tensor in load_file(file).items()}, file)
