"""int4_budget: the layers that lose most by four bits get eight, as long as the budget lasts."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from phi3_assets.core.budget import Budget, parse_budget
from phi3_assets.core.errors import UserError
from phi3_assets.models.directory import copy_model
from phi3_assets.quantising.budget import choose, extra_bytes
from phi3_assets.quantising.size import default_bytes, int4_bytes
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep, tiny_recipe
from phi3_assets_tests.steps.test_quantize import onnx_graph

GPTQ = {"int4_algorithm": "gptq", "int4_symmetric": False, "int4_embedding_bits": 4}


@pytest.fixture(scope="module")
def inputs(tiny_chain: Chain) -> dict[str, Path]:
    return tiny_chain.inputs("merged_model", "formatted_corpus")


def params(**fields: Any) -> dict[str, Any]:
    return ONNX_INT4_MODEL.params(tiny_recipe(**{**GPTQ, **fields}))


def layers_in_8_bits(model: Path) -> set[str]:
    """As layer.matrix, of the graph; gate and up are one matrix in the model and two here."""
    found = set()
    for node in onnx_graph(model).node:
        bits = [item.i for item in node.attribute if item.name == "bits"]
        if node.op_type == "MatMulNBits" and bits == [8]:
            layer, matrix = node.name.split("/")[2].removeprefix("layers."), node.name.split("/")[-2]
            found.add(f"{layer}.{'gate_up_proj' if matrix in ('gate_proj', 'up_proj') else matrix}")
    return found


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("weights", "bits"), [(4, 4), (4, 8), (2, 4)])
def test_bytes_are_reckoned_before_anything_is_quantised(
    symmetric: bool, weights: int, bits: int, inputs: dict[str, Path], run_step: RunStep
) -> None:
    fields = {**GPTQ, "int4_symmetric": symmetric, "int4_bits": weights, "int4_embedding_bits": bits}
    fields["int4_block_size"] = 16
    made = run_step(ONNX_INT4_MODEL, inputs, **fields)
    reckoned = int4_bytes(inputs["merged_model"], params(**fields))
    assert made.metrics["model_bytes"] <= reckoned <= made.metrics["model_bytes"] + 5_000


def test_bytes_of_olives_default_are_reckoned(inputs: dict[str, Path], tiny_int4: Made) -> None:
    reckoned = default_bytes(inputs["merged_model"], params())
    assert reckoned <= tiny_int4.metrics["model_bytes"] <= reckoned + 3_000


def test_the_most_sensitive_layers_get_8_bits_and_the_budget_holds(
    inputs: dict[str, Path], run_step: RunStep, tmp_path: Path
) -> None:
    """One layer is made sensitive: a few weights so large that a grid of 16 steps leaves nothing of the others."""
    spoilt = tmp_path / "merged"
    spoilt.mkdir()
    copy_model(inputs["merged_model"], spoilt)
    (path,) = spoilt.glob("*.safetensors")
    tensors = load_file(path)
    name = "model.layers.1.mlp.down_proj"
    tensors[f"{name}.weight"][:, ::32] *= 40
    save_file(tensors, path, {"format": "pt"})
    given = {**inputs, "merged_model": spoilt}
    least = int4_bytes(spoilt, params())
    budget = (least + extra_bytes(spoilt, params())[name] + 500) // 1000 + 1
    made = run_step(ONNX_INT4_MODEL, given, **GPTQ, int4_budget=f"{budget} KB")
    assert layers_in_8_bits(made.path) == {"1.down_proj"}
    assert made.metrics["model_bytes"] <= budget * 1000
    assert [line for line in made.log if "1 of 8 linear layers get 8 bits" in line]
    assert [line for line in made.notes if line.startswith(f"8 bits: {name}")]


def test_two_bits_get_four_where_the_budget_pays_and_are_recovered(inputs: dict[str, Path], run_step: RunStep) -> None:
    fields = {**GPTQ, "int4_bits": 2}
    most = int4_bytes(inputs["merged_model"], params(**GPTQ))
    budget = (int4_bytes(inputs["merged_model"], params(**fields)) + most) // 2
    made = run_step(ONNX_INT4_MODEL, inputs, **fields, int4_budget=f"{budget / 1000} KB", int4_recovery_steps=12)
    bits = {
        next(item.i for item in node.attribute if item.name == "bits")
        for node in onnx_graph(made.path).node
        if node.op_type == "MatMulNBits" and "lm_head" not in node.name
    }
    assert bits == {2, 4}
    assert made.metrics["model_bytes"] <= budget
    assert made.metrics["recovery_divergence_after"] < 0.9 * made.metrics["recovery_divergence_before"]
    assert made.metrics["generated_tokens"] > 0


def test_a_budget_for_everything_gives_everything_8_bits(inputs: dict[str, Path], run_step: RunStep) -> None:
    made = run_step(ONNX_INT4_MODEL, inputs, **GPTQ, int4_budget="10 MB", int4_recovery_steps=2)
    names = ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
    assert layers_in_8_bits(made.path) == {f"{layer}.{name}" for layer in (0, 1) for name in names}


def test_a_budget_that_cannot_be_met_says_the_least_that_can(inputs: dict[str, Path], run_step: RunStep) -> None:
    fields = {**GPTQ, "int4_embedding_bits": 8}
    least = int4_bytes(inputs["merged_model"], params(**fields)) / 1e6
    said = (
        f"int4_budget 0.1 is .* cannot be met: with every layer in 4 bits this model takes {least:.1f} MB .* "
        "save elsewhere: int4_bits: 2, int4_embedding_bits: 4, int4_block_size: 64, int4_symmetric: true"
    )
    with pytest.raises(UserError, match=said):
        run_step(ONNX_INT4_MODEL, inputs, **fields, int4_budget="0.1")


def test_layers_are_taken_by_what_they_lose_per_byte_where_they_fit() -> None:
    losses = {"a": 9.0, "b": 2.0, "c": 1.0, "d": 0.1}
    extra = {"a": 90, "b": 10, "c": 10, "d": 5}
    assert choose(losses, 100, extra) == ["a", "b"]
    assert choose(losses, 25, extra) == ["b", "c", "d"]
    assert choose(losses, 4, extra) == []


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("85 MB", Budget(size_bytes=85_000_000)),
        ("1.9GB", Budget(size_bytes=1_900_000_000)),
        ("0.4", Budget(share=0.4)),
    ],
)
def test_budgets_are_sizes_or_shares(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


def test_a_share_may_be_a_number() -> None:
    assert tiny_recipe(**GPTQ, int4_budget=0.4).int4_budget == "0.4"


@pytest.mark.parametrize("text", ["85", "0", "small", "-3 MB", "0 MB", "1.5", "85 MiB"])
def test_what_is_neither_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"int4_budget.*must be a size such as 85 MB, or a share"):
        tiny_recipe(**GPTQ, int4_budget=text)


def test_contradictions_are_refused() -> None:
    with pytest.raises(UserError, match="int4_budget: needs int4_algorithm gptq; with default it must be empty"):
        tiny_recipe(int4_budget="0.4")
    with pytest.raises(UserError, match="leave int8_modules empty"):
        tiny_recipe(**GPTQ, int4_budget="0.4", int8_modules=["o_proj"])


def test_the_default_recipe_has_no_pattern_picked_by_hand() -> None:
    from phi3_assets.core.recipe_file import load_recipe, shipped_recipes

    assert not any(load_recipe(name).int8_modules for name in shipped_recipes())
    assert load_recipe("smol-cpu").int4_budget
