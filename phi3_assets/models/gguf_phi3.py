"""A Llama model in a GGUF file, laid out as Phi-3.

Phi-3 is Llama with the rows of q, k and v stacked into `qkv_proj` and those of gate and up into `gate_up_proj`. The
arithmetic is the same, so logits must be too: that is checked on every load.
"""

from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError


def load_gguf(gguf: Path) -> tuple[Any, Any]:
    """Load model and tokenizer from a GGUF file, dequantised to float32.

    Returns:
        (LlamaForCausalLM in evaluation mode, tokenizer).

    Raises:
        UserError: The file holds another architecture than Llama.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).eval()
    if model.config.model_type != "llama":
        raise UserError(
            f"base_model: {gguf.name} holds a {model.config.model_type!r} model; only Llama can be laid out as Phi-3."
        )
    return model, AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)


def numbers_of(gguf: Path) -> int:
    """Numbers in a GGUF file's tensors, from its header."""
    from gguf import GGUFReader

    return sum(int(tensor.n_elements) for tensor in GGUFReader(gguf).tensors)


def as_phi3(llama: Any) -> Any:
    """Lay a LlamaForCausalLM out as Phi3ForCausalLM with the same weights.

    Raises:
        UserError: The model uses something Phi-3 lacks: biases, a free head size, scaled rotary embedding.
    """
    import torch
    from transformers import Phi3Config, Phi3ForCausalLM

    source = llama.config
    rope = source.rope_parameters
    foreign = {
        "attention_bias": source.attention_bias,
        "mlp_bias": source.mlp_bias,
        "head_dim": source.head_dim != source.hidden_size // source.num_attention_heads,
        "rope_type": rope["rope_type"] != "default",
    }
    if any(foreign.values()):
        names = ", ".join(name for name, value in foreign.items() if value)
        raise UserError(f"base_model: cannot be laid out as Phi-3, which has no such {names}.")
    config = Phi3Config(
        vocab_size=source.vocab_size,
        hidden_size=source.hidden_size,
        intermediate_size=source.intermediate_size,
        num_hidden_layers=source.num_hidden_layers,
        num_attention_heads=source.num_attention_heads,
        num_key_value_heads=source.num_key_value_heads,
        hidden_act=source.hidden_act,
        max_position_embeddings=source.max_position_embeddings,
        # Equal to max_position_embeddings: otherwise the GenAI builder takes the LongRoPE layout.
        original_max_position_embeddings=source.max_position_embeddings,
        initializer_range=source.initializer_range,
        rms_norm_eps=source.rms_norm_eps,
        tie_word_embeddings=source.tie_word_embeddings,
        rope_parameters={"rope_type": "default", "rope_theta": rope["rope_theta"]},
        bos_token_id=source.bos_token_id,
        eos_token_id=source.eos_token_id,
        pad_token_id=source.pad_token_id,
        dtype="float32",
    )
    with torch.device("meta"):
        model = Phi3ForCausalLM(config)
    model = model.to_empty(device="cpu")
    model.load_state_dict(_fuse(llama.state_dict(), source.num_hidden_layers), strict=True)
    model.tie_weights()
    # Buffers that are no weights (the rotary frequencies) came out of to_empty() unset.
    model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def _fuse(weights: dict[str, Any], layers: int) -> dict[str, Any]:
    """Stack q, k, v and gate, up of each layer by rows; the other weights keep name and value."""
    import torch

    fused = dict(weights)
    for layer in range(layers):
        for block, parts, whole in (
            ("self_attn", ("q_proj", "k_proj", "v_proj"), "qkv_proj"),
            ("mlp", ("gate_proj", "up_proj"), "gate_up_proj"),
        ):
            prefix = f"model.layers.{layer}.{block}."
            fused[f"{prefix}{whole}.weight"] = torch.cat([fused.pop(f"{prefix}{part}.weight") for part in parts])
    return fused
