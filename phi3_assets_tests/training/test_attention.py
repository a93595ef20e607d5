"""Attention in blocks: loss and gradients are those of torch's attention."""

from typing import Any

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.models import environment
from phi3_assets.models.random_phi3 import write_random_model
from phi3_assets.training.attention import BLOCKS, causal_attention, chosen, use

environment.prepare()

TOKENS = 150
"""Two blocks and a part of a third."""


@pytest.mark.parametrize("heads_of_group", [1, 3])
@pytest.mark.parametrize("masked", ["", "bool", "added"])
def test_mixes_and_gradients_are_those_of_torch(heads_of_group, masked) -> None:
    import torch

    torch.manual_seed(0)
    query = torch.randn(2, 2 * heads_of_group, TOKENS, 8, requires_grad=True)
    key, value = (torch.randn(2, 2, TOKENS, 8, requires_grad=True) for _ in range(2))
    visible = (torch.rand(2, 1, TOKENS, TOKENS) < 0.5).tril() | torch.eye(TOKENS, dtype=torch.bool)
    mask = {"": None, "bool": visible, "added": torch.zeros(visible.shape).masked_fill(~visible, -1e9)}[masked]
    expected = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=1.0, enable_gqa=True
    )
    mixed = causal_attention(query, key, value, mask)
    torch.testing.assert_close(mixed, expected)
    gradient = torch.randn_like(expected)
    found, wanted = (torch.autograd.grad(one, (query, key, value), gradient) for one in (mixed, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shape", ["phi3-tiny", "phi3.5-small", "phi4-small"])
@pytest.mark.parametrize("batch", ["causal", "padded"])
def test_adapter_learns_the_same(shape, checkpointing, batch, tmp_path) -> None:
    """Also with LongRoPE, tied embeddings, partly rotated heads and a sliding window."""
    import torch

    model = adapted(shape, tmp_path, torch.float32)
    if checkpointing:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable()
    expected = learnt(model, batch)
    # It is for bfloat16 alone, but in float32 rounding hides nothing.
    use(model.get_base_model(), BLOCKS)
    torch.testing.assert_close(learnt(model, batch), expected, rtol=1e-4, atol=1e-6)


def test_rounds_no_worse_than_torch_in_bfloat16(tmp_path) -> None:
    import torch

    exact = learnt(adapted("phi3.5-small", tmp_path, torch.float32), "causal")
    model = adapted("phi3.5-small", tmp_path, torch.bfloat16)
    plain = learnt(model, "causal")
    use(model.get_base_model(), BLOCKS)
    errors = [float((found - exact).norm() / exact.norm()) for found in (plain, learnt(model, "causal"))]
    assert errors[1] < 1.2 * errors[0]


@pytest.mark.parametrize(
    ("choice", "dtype", "on_gpu", "name"),
    [
        ("auto", "bfloat16", False, BLOCKS),
        ("auto", "float32", False, "sdpa"),
        ("auto", "bfloat16", True, "sdpa"),
        ("sdpa", "bfloat16", False, "sdpa"),
    ],
)
def test_what_is_chosen(choice, dtype, on_gpu, name) -> None:
    assert chosen({"attn_implementation": choice, "torch_dtype": dtype}, on_gpu=on_gpu) == name


@pytest.mark.parametrize(
    ("dtype", "missing"),
    [
        ("bfloat16", r"needs a CUDA GPU and the package flash-attn\. Or set"),
        ("float32", r"needs a CUDA GPU and torch_dtype: bfloat16 and the package flash-attn\. Or set"),
    ],
)
def test_flash_attention_says_what_it_needs(dtype, missing) -> None:
    with pytest.raises(UserError, match=missing):
        chosen({"attn_implementation": "flash_attention_2", "torch_dtype": dtype}, on_gpu=False)


def adapted(shape: str, folder: Any, dtype: Any) -> Any:
    """A random model with an adapter that does something; its dropout is off."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    write_random_model(shape, 0, folder)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    base.config.sliding_window = 100 if shape == "phi3.5-small" else None
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["qkv_proj", "o_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    return get_peft_model(base, config).train()


def learnt(model: Any, kind: str) -> Any:
    """Loss and the gradient of every weight of the adapter, as one vector."""
    import torch

    ids = torch.arange(2 * TOKENS).view(2, TOKENS) * 7 % 300 + 20
    batch = {"input_ids": ids, "labels": ids}
    if kind == "padded":
        batch["attention_mask"] = torch.ones_like(ids)
        batch["attention_mask"][1, 90:] = 0
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=model.dtype == torch.bfloat16):
        loss = model(**batch).loss
    loss.backward()
    gradients = [weight.grad.flatten() for weight in model.parameters() if weight.requires_grad]
    return torch.cat([loss.detach()[None], *gradients])
