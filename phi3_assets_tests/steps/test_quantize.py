"""Quantising: the int4 model runs in ONNX Runtime GenAI, stops where the base model stops, and names no local path."""

import json
from pathlib import Path

import pytest

from phi3_assets.errors import UserError
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep


def test_int4_model_generates(tiny_int4: Made) -> None:
    assert tiny_int4.metrics["generated_tokens"] > 0
    assert tiny_int4.metrics["model_bytes"] < tiny_int4.metrics["bytes"] < 400_000


def test_every_stop_token_and_a_sensible_length(tiny_int4: Made) -> None:
    """onnxruntime-genai #780: Phi-3 has three stop tokens and the runtime kept one, so it talked on."""
    config = json.loads((tiny_int4.path / "genai_config.json").read_text())
    assert config["model"]["eos_token_id"] == [0, 1, 3]
    assert config["search"]["max_length"] == 512
    assert config["model"]["type"] == "phi3"


def test_block_size_and_accuracy_level_reach_the_model(tiny_merged: Made, tiny_int4: Made, run_step: RunStep) -> None:
    import onnx

    other = run_step(ONNX_INT4_MODEL, {"merged_model": tiny_merged.path}, int4_block_size=16, int4_accuracy_level=1)
    found = []
    for made in (tiny_int4, other):
        graph = onnx.load(made.path / "model.onnx", load_external_data=False).graph
        node = next(node for node in graph.node if node.op_type == "MatMulNBits")
        attributes = {item.name: item.i for item in node.attribute}
        found.append((attributes["bits"], attributes["block_size"], attributes["accuracy_level"]))
    assert found == [(4, 32, 4), (4, 16, 1)]


def test_nothing_is_left_outside(tiny_merged: Made, run_step: RunStep, tmp_path: Path) -> None:
    work = tmp_path / "work"
    made = run_step(ONNX_INT4_MODEL, {"merged_model": tiny_merged.path}, work=work)
    assert [path for path in work.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in made.path.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "genai_config.json",
        "generation_config.json",
        "model.onnx",
        "model.onnx.data",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_same_input_gives_the_same_bytes(tiny_chain: Chain, run_step: RunStep) -> None:
    again = run_step(ONNX_INT4_MODEL, {"merged_model": tiny_chain.merged_model})
    for path in tiny_chain.onnx_int4_model.iterdir():
        assert (again.path / path.name).read_bytes() == path.read_bytes(), path.name


def test_head_size_that_no_kernel_takes_is_refused(tiny_merged: Made, run_step: RunStep, tmp_path: Path) -> None:
    config = json.loads((tiny_merged.path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_attention_heads": 8}))
    with pytest.raises(UserError, match=r"head size is 8.*multiple of 16"):
        run_step(ONNX_INT4_MODEL, {"merged_model": tmp_path})
