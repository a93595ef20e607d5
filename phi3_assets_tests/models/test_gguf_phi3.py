"""Llama laid out as Phi-3 is the same function."""

from typing import Any

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.models import environment
from phi3_assets.models.compare import max_difference, prompt_logits
from phi3_assets.models.gguf_phi3 import as_phi3

environment.prepare()


def llama(**changes: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "default", "rope_theta": 12345.0},
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**fields, **changes})).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_the_sources(tied: bool) -> None:
    source = llama(tie_word_embeddings=tied)
    phi3 = as_phi3(source)
    prompts = [[1, 5, 9, 50, 3, 77], [2]]
    assert phi3.config.model_type == "phi3"
    assert phi3.config.max_position_embeddings == phi3.config.original_max_position_embeddings == 64
    assert max_difference(prompt_logits(source, prompts), prompt_logits(phi3, prompts)) < 1e-5
    assert (phi3.lm_head.weight is phi3.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mlp_bias": True}, {"head_dim": 16}])
def test_what_phi3_lacks_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        as_phi3(llama(**changes))
