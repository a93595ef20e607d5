"""A causal language model of transformers read part by part, so that one decoder layer at a time is in memory."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from phi3_assets.core.files import read_json
from phi3_assets.models.directory import tensor_headers
from phi3_assets.quantising.blocks import make_learnable
from phi3_assets.quantising.divergence import Batch, attention_of


class Decoder:
    """A model whose parts are loaded when asked for, and belong to who asked.

    Attributes:
        layers: Full names of the decoder layers, in their order.
    """

    def __init__(self, directory: Path, config: Any, dtype: Any, device: Any) -> None:
        """Nothing is loaded yet.

        Args:
            directory: Hugging Face layout: numbers, or integers that Olive's Gptq and Rtn left.
            config: The transformers configuration of the model that was quantised.
            dtype: The torch dtype of its arithmetic.
            device: Where its parts go.
        """
        import torch
        from olive.common.quant.hf_utils import OliveHfQuantizationConfig
        from transformers import AutoModelForCausalLM

        self._directory, self._dtype, self._device = directory, dtype, device
        self._names = set(tensor_headers(directory))
        quantised = read_json(directory / "config.json").get("quantization_config")
        self._quantisation = OliveHfQuantizationConfig(**quantised) if quantised else None
        with torch.device("meta"):
            self._skeleton = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
        base = self._skeleton.base_model
        self._rotary = type(base.rotary_emb)(config=config).to(device)
        self._prefix = f"{self._skeleton.base_model_prefix}."
        self.layers = [f"{self._prefix}layers.{at}" for at in range(len(base.layers))]

    def part(self, name: str) -> Any:
        """A module by its full name, with its weights; only changes and norms of quantised layers are trainable."""
        import torch
        from torch import nn

        source = name
        if not any(known.startswith(f"{name}.") for known in self._names):  # tied: the file has the weight once
            source = f"{self._prefix}embed_tokens"
        holder = nn.ModuleDict({"part": deepcopy(self._skeleton.get_submodule(name))})
        for path, module in list(holder.named_modules())[1:]:  # but for the holder itself
            full = f"{source}{path.removeprefix('part')}"
            if f"{full}.qweight" in self._names:
                parent, _, child = path.rpartition(".")
                setattr(holder.get_submodule(parent), child, self._quantised(full, module))
                continue
            for key, _ in list(module.named_parameters(recurse=False)):
                number = self._tensor(f"{full}.{key}").to(self._dtype)
                setattr(module, key, nn.Parameter(number, requires_grad=False))
        if self._quantisation:
            make_learnable(holder, self._dtype)
        part = holder["part"].to(self._device)
        assert not any(one.device == torch.device("meta") for one in part.state_dict().values())
        return part

    def embed(self, batch: Batch) -> Any:
        """Hidden states before the first layer: (sequences, tokens, hidden)."""
        import torch

        with torch.no_grad():
            return self.part(f"{self._prefix}embed_tokens")(batch.input_ids.to(self._device))

    def run(self, layer: Any, hidden: Any, batch: Batch) -> Any:
        """Hidden states after a layer that `part` gave; both (sequences, tokens, hidden)."""
        import torch

        hidden = hidden.to(self._device, self._dtype)
        more = attention_of(batch, self._dtype, self._device)
        positions = more.setdefault("position_ids", torch.arange(hidden.shape[1], device=self._device)[None])
        return layer(hidden, position_embeddings=self._rotary(hidden, positions), use_cache=False, **more)

    def logits(self, hidden: Any, batch: Batch) -> Any:
        """From the last layer's hidden states to logits of the counted positions: float32 (positions, vocabulary)."""
        import torch

        with torch.no_grad():
            normed = self.part(f"{self._prefix}norm")(hidden.to(self._device, self._dtype))
            return self.part("lm_head")(normed[batch.counted.to(self._device)]).to(torch.float32)

    def _tensor(self, name: str) -> Any:
        from safetensors import safe_open

        for path in sorted(self._directory.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                if name in file.keys():  # noqa: SIM118 (not a mapping)
                    return file.get_tensor(name)
        raise KeyError(name)

    def _quantised(self, name: str, module: Any) -> Any:
        """Olive's layer of integers in the place of a linear layer or an embedding."""
        from olive.common.quant.nn import QuantEmbedding, QuantLinear
        from torch import nn

        assert self._quantisation is not None
        tensors = {key: self._tensor(f"{name}.{key}") for key in ("qweight", "scales")}
        for key in ("qzeros", "bias"):
            if f"{name}.{key}" in self._names:
                tensors[key] = self._tensor(f"{name}.{key}")
        given = {**self._quantisation.get_qlinear_init_args(name), "dtype": tensors["scales"].dtype}
        made = (
            QuantEmbedding(module.num_embeddings, module.embedding_dim, padding_idx=module.padding_idx, **given)
            if isinstance(module, nn.Embedding)
            else QuantLinear(module.in_features, module.out_features, bias="bias" in tensors, **given)
        )
        made.load_state_dict(tensors)
        return made
