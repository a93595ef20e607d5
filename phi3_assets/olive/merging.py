"""Olive's MergeAdapterWeights, tensor by tensor: in memory is one shard of the merged model, whatever its size."""

from copy import deepcopy
from pathlib import Path
from typing import Any

from phi3_assets.models.directory import safetensors_header
from phi3_assets.models.shards import write_shards

_PREFIX = "base_model.model."


def merging_pass() -> Any:
    """Olive's pass, for base models and adapters of any size; the bytes are those that Olive's own writes.

    Olive's loads the whole base model and lets PEFT merge it in place. Here PEFT merges each layer by itself.
    """
    from olive.passes.pytorch.common import inherit_hf_from_hf
    from olive.passes.pytorch.merge_adapter_weights import MergeAdapterWeights

    class ShardedMerge(MergeAdapterWeights):  # type: ignore[misc]
        """Merge adapter weights into the base model, shard by shard."""

        def _run_for_config(self, model: Any, config: Any, output_model_path: str) -> Any:
            output = Path(output_model_path)
            merge = _Merge(Path(model.model_path), Path(model.adapter_path))
            if not merge.by_tensor:
                return super()._run_for_config(model, config, output_model_path)
            output.mkdir(parents=True, exist_ok=True)
            merge.write(output)
            model.save_metadata(output)
            return inherit_hf_from_hf(model, output_model_path, adapter_path=None)

    return ShardedMerge


class _Merge:
    """One base model and one adapter."""

    def __init__(self, base: Path, adapter: Path) -> None:
        import torch
        from peft import LoraConfig
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModelForCausalLM

        self.base = base
        self.config = AutoConfig.from_pretrained(base)
        with torch.device("meta"):
            self.skeleton = AutoModelForCausalLM.from_config(self.config)
        self.dtype = self.skeleton.dtype
        self.lora = LoraConfig.from_pretrained(adapter)
        self.lora.inference_mode = True
        self.weights = load_file(adapter / "adapter_model.safetensors")
        self.files = {name: file for file in sorted(base.glob("*.safetensors")) for name in safetensors_header(file)}
        self.shapes = self.skeleton.state_dict()
        if self.config.tie_word_embeddings:
            self.shapes.pop("lm_head.weight", None)
            self.files.pop("lm_head.weight", None)
        adapted = {name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in self.weights}
        self.adapted = {f"{name}.weight": name for name in adapted if name}

    @property
    def by_tensor(self) -> bool:
        """Whether the files' tensors are the model's, and the adapter changes linear layers, each by itself."""
        from torch import nn

        lora = self.lora
        return (
            self.config.dtype is not None
            and self.files.keys() == self.shapes.keys()
            and self.adapted.keys() <= self.shapes.keys()
            and all(isinstance(self.skeleton.get_submodule(layer), nn.Linear) for layer in self.adapted.values())
            and all(name.startswith(_PREFIX) and ".lora_" in name for name in self.weights)
            and not (lora.modules_to_save or lora.target_parameters or lora.trainable_token_indices)
            and not (lora.layer_replication or lora.lora_bias or lora.alora_invocation_tokens or lora.use_qalora)
            and lora.bias == "none"
            and lora.init_lora_weights in (True, False, "gaussian")  # others begin by changing the base model
        )

    def write(self, output: Path) -> None:
        """Write the merged weights and configurations."""
        sizes = {name: tensor.numel() * self.dtype.itemsize for name, tensor in sorted(self.shapes.items())}
        write_shards(output, sizes, self._tensor)

    def _tensor(self, name: str) -> Any:
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as file:
            weight = file.get_tensor(name).to(self.dtype)
        return self._merged(self.adapted[name], weight) if name in self.adapted else weight

    def _merged(self, layer: str, weight: Any) -> Any:
        """The weight of a linear layer, merged by PEFT in a model that has this layer alone."""
        import torch
        from peft import inject_adapter_in_model
        from torch import nn

        outputs, inputs = weight.shape
        alone = nn.Linear(inputs, outputs, bias=False, device="meta")
        alone.weight = nn.Parameter(weight, requires_grad=False)
        root: Any = nn.Module()
        *parents, child = layer.split(".")
        holder = root
        for parent in parents:
            holder.add_module(parent, nn.Module())
            holder = holder.get_submodule(parent)
        holder.add_module(child, alone)
        inject_adapter_in_model(deepcopy(self.lora), root)
        adapted = root.get_submodule(layer)
        of_layer = f"{_PREFIX}{layer}.lora_"
        for key, tensor in self.weights.items():
            if key.startswith(of_layer):
                kind = key.removeprefix(f"{_PREFIX}{layer}.").removesuffix(".weight")
                # As PEFT does when it lays an adapter over a model: halves are merged as float32.
                exact = tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
                getattr(adapted, kind)["default"].weight = nn.Parameter(exact, requires_grad=False)
        with torch.no_grad():
            adapted.merge()
        return adapted.get_base_layer().weight.data
