"""Quantising: the int4 model runs in ONNX Runtime GenAI, stops where the base model stops, and names no local path."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.forecast import TOLERANCE
from phi3_assets.core.memory import held_bytes
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.olive.int4_configs import linear_layers
from phi3_assets.quantising import need
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets_tests.headers import headers_alone
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep, tiny_recipe

FILES = [
    "chat_template.jinja",
    "config.json",
    "genai_config.json",
    "generation_config.json",
    "model.onnx",
    "model.onnx.data",
    "tokenizer.json",
    "tokenizer_config.json",
]


MEASURED_MIB = {
    1: {"default": 3155, "rtn_last": 4389, "k_quant_last": 6436, "gptq": 1556},
    4: {"default": 6342, "rtn_last": 7218},
}
"""Peak beside the libraries of Phi-3-mini's widths in so many layers."""


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
    other = run_step(ONNX_INT4_MODEL, {"merged_model": tiny_merged.path}, int4_block_size=16, int4_accuracy_level=1)
    found = []
    for made in (tiny_int4, other):
        graph = onnx_graph(made.path)
        node = next(node for node in graph.node if node.op_type == "MatMulNBits")
        attributes = {item.name: item.i for item in node.attribute}
        found.append((attributes["bits"], attributes["block_size"], attributes["accuracy_level"]))
    assert found == [(4, 32, 4), (4, 16, 1)]


@pytest.mark.parametrize("algorithm", ["rtn_last", "k_quant_last", "k_quant_mixed"])
def test_algorithms_give_the_output_layer_8_bits(algorithm: str, tiny_merged: Made, run_step: RunStep) -> None:
    made = run_step(ONNX_INT4_MODEL, {"merged_model": tiny_merged.path}, int4_algorithm=algorithm, int4_symmetric=False)
    assert made.metrics["generated_tokens"] > 0
    assert any(node.name == "/lm_head/MatMul_Q8" for node in onnx_graph(made.path).node)


@pytest.mark.parametrize("symmetric", [True, False])
def test_gptq_is_closer_than_rounding(symmetric: bool, tiny_chain: Chain, run_step: RunStep) -> None:
    """And tied embeddings, in 8 bits, are stored once."""
    inputs = tiny_chain.inputs("merged_model", "formatted_corpus")
    made = {
        name: run_step(ONNX_INT4_MODEL, inputs, int4_algorithm=name, int4_symmetric=symmetric)
        for name in ("default", "gptq")
    }
    error = {name: logit_error(item.path, tiny_chain) for name, item in made.items()}
    assert error["gptq"] < 0.9 * error["default"]
    assert made["gptq"].metrics["model_bytes"] < 0.7 * made["default"].metrics["model_bytes"]
    assert (
        sum(
            len(item.dims) > 1 and item.dims[0] == 512 and item.data_type == 2 and item.dims[-1] > 2
            for item in onnx_graph(made["gptq"].path).initializer
        )
        == 1
    )
    assert sorted(path.name for path in made["gptq"].path.iterdir()) == FILES


def test_int8_modules_get_8_bits(tiny_chain: Chain, run_step: RunStep) -> None:
    inputs = tiny_chain.inputs("merged_model", "formatted_corpus")
    made = run_step(ONNX_INT4_MODEL, inputs, int4_algorithm="gptq", int8_modules=["qkv_proj", "o_proj"])
    bits = {
        node.name.split("/")[-2]: next(item.i for item in node.attribute if item.name == "bits")
        for node in onnx_graph(made.path).node
        if node.op_type == "MatMulNBits"
    }
    assert bits == {"qkv_proj": 8, "o_proj": 8, "gate_proj": 4, "up_proj": 4, "down_proj": 4, "lm_head": 8}


def test_int8_modules_choose_layers_by_the_ends_of_their_names(tmp_path: Path) -> None:
    names = [f"model.layers.{layer}.self_attn.{name}" for layer in (1, 2, 11) for name in ("qkv_proj", "not_qkv_proj")]
    weights = {f"{name}.weight": np.zeros((2, 2), np.float32) for name in names}
    save_file(weights | {"model.layers.1.qkv_proj_norm.weight": np.zeros(2, np.float32)}, tmp_path / "m.safetensors")

    def chosen(*patterns: str) -> list[str]:
        return [name.removeprefix("model.layers.") for name in linear_layers(tmp_path, patterns)]

    assert chosen("qkv_proj") == ["1.self_attn.qkv_proj", "11.self_attn.qkv_proj", "2.self_attn.qkv_proj"]
    assert chosen("layers.1?.self_attn.qkv_proj") == ["11.self_attn.qkv_proj"]
    assert chosen("layers.1.self_attn.qkv_proj", "layers.[12].*.qkv_proj") == [
        "1.self_attn.qkv_proj",
        "2.self_attn.qkv_proj",
    ]
    with pytest.raises(UserError, match="no layer 'layers.3.self_attn.qkv_proj'"):
        chosen("qkv_proj", "layers.3.self_attn.qkv_proj")


def test_int8_modules_that_no_layer_has_are_refused(tiny_chain: Chain, run_step: RunStep) -> None:
    inputs = tiny_chain.inputs("merged_model", "formatted_corpus")
    with pytest.raises(UserError, match="int8_modules: the model has no layer 'q_proj'"):
        run_step(ONNX_INT4_MODEL, inputs, int4_algorithm="gptq", int8_modules=["o_proj", "q_proj"])


def test_block_size_that_leaves_a_rest_is_refused(tiny_chain: Chain, run_step: RunStep) -> None:
    inputs = tiny_chain.inputs("merged_model", "formatted_corpus")
    with pytest.raises(UserError, match="int4_block_size 128 does not divide the model's hidden_size, 64"):
        run_step(ONNX_INT4_MODEL, inputs, int4_algorithm="gptq", int4_block_size=128)


@pytest.mark.parametrize("algorithm", ["default", "gptq"])
def test_memory_is_forecast(algorithm: str, tiny_chain: Chain, run_step: RunStep) -> None:
    """Python and libraries at this size; of a real one `python -m benchmarks rehearsal` tells."""
    inputs = tiny_chain.inputs("merged_model", "formatted_corpus")
    metrics = run_step(ONNX_INT4_MODEL, inputs, int4_algorithm=algorithm).metrics
    peak, forecast = metrics["peak_memory_bytes"], metrics["estimated_memory_bytes"]
    assert peak / TOLERANCE <= forecast <= peak * TOLERANCE


def test_forecast_of_real_widths_is_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See `phi3_assets.quantising.need`."""
    monkeypatch.setattr(need, "calibration_tokens", lambda model: 4096)
    params = ONNX_INT4_MODEL.params(load_recipe("phi3-mini-lora"))
    for layers, measured in MEASURED_MIB.items():
        headers_alone(tmp_path / str(layers), f"phi3-mini-{layers}-layers")
        for algorithm, size in measured.items():
            held = held_bytes()
            told = need.forecast(tmp_path / str(layers), {**params, "int4_algorithm": algorithm}, None)
            assert size / TOLERANCE <= (told.memory - held) / 2**20 <= size * TOLERANCE


def test_too_little_memory_is_refused_beforehand(
    tiny_merged: Made, run_step: RunStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: -memory.held_bytes())
    with pytest.raises(UserError, match=r"Quantising needs about .* Set int4_algorithm: gptq, which takes .* or run"):
        run_step(ONNX_INT4_MODEL, {"merged_model": tiny_merged.path}, int4_algorithm="default")


def test_gptq_without_a_corpus_says_so(tiny_merged: Made, run_step: RunStep) -> None:
    with pytest.raises(UserError, match="gptq needs the corpus"):
        run_step(ONNX_INT4_MODEL, {"merged_model": tiny_merged.path}, int4_algorithm="gptq")


def logit_error(model: Path, chain: Chain) -> float:
    """Root mean square difference of the int4 model's logits from the merged model's, over the test prompts."""
    import numpy as np
    import onnxruntime_genai as og
    import torch
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(chain.merged_model)
    loaded = og.Model(str(model))
    squares = []
    for line in (chain.formatted_corpus / "test.jsonl").read_text().splitlines():
        ids = json.loads(line)["prompt_ids"]
        generator = og.Generator(loaded, og.GeneratorParams(loaded))
        generator.append_tokens(ids)
        with torch.inference_mode():
            wanted = merged(input_ids=torch.tensor([ids])).logits[0].numpy()
        squares.append(float(((np.asarray(generator.get_output("logits")[0]) - wanted) ** 2).mean()))
    return float(np.sqrt(np.mean(squares)))


def test_symmetric_k_quant_is_refused() -> None:
    """It builds, loads and babbles."""
    with pytest.raises(UserError, match="int4_symmetric: must be false with int4_algorithm k_quant_mixed"):
        tiny_recipe(int4_algorithm="k_quant_mixed", int4_symmetric=True)


def onnx_graph(model: Path) -> Any:
    import onnx

    return onnx.load(model / "model.onnx", load_external_data=False).graph


def test_same_input_gives_the_same_bytes_and_leaves_nothing_outside(
    tiny_chain: Chain, run_step: RunStep, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    again = run_step(ONNX_INT4_MODEL, {"merged_model": tiny_chain.merged_model}, work=work)
    assert [path for path in work.rglob("*") if path.is_file()] == []
    assert sorted(path.name for path in again.path.iterdir()) == FILES
    for path in tiny_chain.onnx_int4_model.iterdir():
        assert (again.path / path.name).read_bytes() == path.read_bytes(), path.name


def test_head_size_that_no_kernel_takes_is_refused(tiny_merged: Made, run_step: RunStep, tmp_path: Path) -> None:
    config = json.loads((tiny_merged.path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_attention_heads": 8}))
    with pytest.raises(UserError, match=r"head size is 8.*multiple of 16"):
        run_step(ONNX_INT4_MODEL, {"merged_model": tmp_path})
