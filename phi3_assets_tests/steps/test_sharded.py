"""Models of any size: merged shard by shard to the bytes of Olive's own merge; every shape goes through the chain."""

from pathlib import Path

import pytest

from phi3_assets.models import shards
from phi3_assets.models.merging import Merge
from phi3_assets.olive.merging import merging_pass
from phi3_assets.olive.passes import run_pass
from phi3_assets.steps import BASE_MODEL, LORA_ADAPTER, MERGED_MODEL, ONNX_INT4_MODEL
from phi3_assets_tests.steps.conftest import Chain, RunStep, write_corpus


def _bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize(("base", "method"), [("phi3-tiny", "lora"), ("phi3-tiny-untied", "dora")])
def test_merged_by_tensor_is_what_olive_merges(base: str, method: str, run_step: RunStep, tmp_path: Path) -> None:
    made = run_step(BASE_MODEL, base_model=f"random:{base}").path
    write_corpus(tmp_path, made)
    adapter = run_step(LORA_ADAPTER, {"base_model": made, "formatted_corpus": tmp_path}, method=method).path
    run_pass("MergeAdapterWeights", {}, made, tmp_path / "whole", adapter=adapter)
    run_pass(merging_pass(Merge(made, adapter)), {}, made, tmp_path / "sharded", adapter=adapter)
    assert _bytes(tmp_path / "sharded") == _bytes(tmp_path / "whole")


def test_shards_are_read_as_one_model(tiny_chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(shards, "SHARD_BYTES", 100_000)
    base, adapter = tiny_chain.base_model, tiny_chain.lora_adapter
    run_pass(merging_pass(Merge(base, adapter)), {}, base, tmp_path / "merged", adapter=adapter)
    assert len(list((tmp_path / "merged").glob("model-*-of-*.safetensors"))) > 1
    whole, parts = (
        AutoModelForCausalLM.from_pretrained(path).state_dict()
        for path in (tiny_chain.merged_model, tmp_path / "merged")
    )
    assert whole.keys() == parts.keys()
    assert all(whole[name].equal(parts[name]) for name in whole)


@pytest.mark.parametrize("shape", ["phi3.5-small", "phi4-small"])
@pytest.mark.parametrize("algorithm", ["default", "gptq"])
def test_newer_shapes_go_through_the_chain(shape: str, algorithm: str, run_step: RunStep, tmp_path: Path) -> None:
    """LongRoPE; and with it tied embeddings and rotation of a part of each head."""
    base = run_step(BASE_MODEL, base_model=f"random:{shape}").path
    assert _bytes(run_step(BASE_MODEL, base_model=f"random:{shape}").path) == _bytes(base)
    write_corpus(tmp_path, base)
    adapter = run_step(LORA_ADAPTER, {"base_model": base, "formatted_corpus": tmp_path}).path
    merged = run_step(MERGED_MODEL, {"base_model": base, "lora_adapter": adapter})
    assert merged.metrics["least_change_kept"] == pytest.approx(1, abs=1e-5)
    inputs = {"merged_model": merged.path, "formatted_corpus": tmp_path}
    int4 = run_step(ONNX_INT4_MODEL, inputs, int4_algorithm=algorithm)
    assert int4.metrics["generated_tokens"] > 0
