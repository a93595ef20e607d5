"""Merging an adapter tensor by tensor, whatever the model's size, and asking of each how much of the change arrived."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from phi3_assets.models.directory import safetensors_header
from phi3_assets.models.rounding import round_by_chance
from phi3_assets.models.shards import write_shards

_PREFIX = "base_model.model."
# Below this share of a change, rounding by chance comes nearer to base + adapter than rounding to the nearest.
_ENOUGH = 0.75
_ROWS = 512


@dataclass(frozen=True)
class Kept:
    """What a merged model has of an adapter.

    Attributes:
        layers: Layers that the adapter changes.
        least: The least share of a layer's change that arrived, measured along it; a layer that was not merged has 0.
            It can be over 1, by chance.
        where: Name of that layer's tensor.
        largest: The largest change of a layer, relative to its numbers (root mean squares).
        noise: The largest error of a layer by rounding, relative to its change (root mean squares).
    """

    layers: int
    least: float
    where: str
    largest: float
    noise: float


class Merge:
    """One base model and one adapter; in memory is one shard of what is written."""

    def __init__(self, base: Path, adapter: Path, seen: Callable[[str, Any], Any] | None = None) -> None:
        """Read the adapter, and the headers of the base model.

        Args:
            base: Hugging Face layout.
            adapter: PEFT's layout.
            seen: Turns a tensor of the base model, by its name, into what the adapter was trained on, in float32 where
                it changes it; None: that is the base model itself.
        """
        import torch
        from peft import LoraConfig
        from safetensors.torch import load_file
        from transformers import AutoConfig, AutoModelForCausalLM

        self.config = AutoConfig.from_pretrained(base)
        with torch.device("meta"):
            self.skeleton = AutoModelForCausalLM.from_config(self.config)
        self.dtype = self.skeleton.dtype
        self.lora = LoraConfig.from_pretrained(adapter)
        self.lora.inference_mode = True
        self.weights = load_file(adapter / "adapter_model.safetensors")
        self.files = _files(base)
        self.shapes = self.skeleton.state_dict()
        if self.config.tie_word_embeddings:
            self.shapes.pop("lm_head.weight", None)
            self.files.pop("lm_head.weight", None)
        adapted = {name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in self.weights}
        self.adapted = {f"{name}.weight": name for name in adapted if name}
        self.seen = seen

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
        """Write the merged weights and configurations.

        A layer is merged in float32 and then rounded to the model's type: to the nearest, or where too little of the
        adapter's change would be left, by chance, which is the same whenever it is merged.
        """
        sizes = {name: tensor.numel() * self.dtype.itemsize for name, tensor in sorted(self.shapes.items())}
        write_shards(output, sizes, self._tensor)

    def kept(self, merged: Path) -> Kept:
        """How much of the adapter's change is in `merged`.

        Each layer's change is reckoned here from the adapter's matrices, in float32, and what the layer moved by is
        laid along it.

        Raises:
            RuntimeError: A tensor that the adapter does not change is not the base model's.
        """
        files = _files(merged)
        found = Kept(layers=0, least=1.0, where="", largest=0.0, noise=0.0)
        for name in self.shapes:
            before, after = self._before(name), _read(files, name)
            if name not in self.adapted:
                if not after.equal(before.to(self.dtype)):
                    raise RuntimeError(f"Merging changed {name}, which the adapter does not.")
                continue
            before = before.float()
            change = self._change(self.adapted[name], before)
            size = float(change.square().sum())
            if size == 0:
                continue
            moved = after.float() - before
            least, where = min((found.least, found.where), (float(moved.mul(change).sum()) / size, name))
            largest = max(found.largest, (size / float(before.square().sum())) ** 0.5)
            noise = max(found.noise, (float(moved.sub_(change).square().sum()) / size) ** 0.5)
            found = Kept(found.layers + 1, least, where, largest, noise)
        return found

    def _before(self, name: str) -> Any:
        weight = _read(self.files, name).to(self.dtype)
        return self.seen(name, weight) if self.seen else weight

    def _tensor(self, name: str) -> Any:
        import torch

        weight = self._before(name)
        if name not in self.adapted:
            return weight.to(self.dtype)
        layer = self._layer(self.adapted[name], weight.to(torch.float32, copy=True))
        with torch.no_grad():
            layer.merge()
        merged = layer.get_base_layer().weight.data
        nearest = merged.to(self.dtype)
        if _arrived(weight, merged, nearest) >= _ENOUGH:
            return nearest
        return round_by_chance(merged, self.dtype, seed=int.from_bytes(sha256(name.encode()).digest()[:8]))

    def _change(self, name: str, before: Any) -> Any:
        """What the adapter adds to a layer, float32."""
        layer = self._layer(name, before)
        first, second = (getattr(layer, which)["default"].weight.data for which in ("lora_A", "lora_B"))
        change = second.float() @ first.float() * layer.scaling["default"]
        if layer.use_dora["default"]:
            whole = before.float() + change
            magnitude = layer.lora_magnitude_vector["default"].weight.data.float() / whole.norm(dim=1)
            change = whole.mul_(magnitude[:, None]).sub_(before.float())
        return change

    def _layer(self, layer: str, weight: Any) -> Any:
        """PEFT's linear layer with its adapter, in a model that has this layer alone."""
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
        return adapted


def _arrived(before: Any, exact: Any, rounded: Any) -> float:
    """Share of a layer's change that rounding left; by some rows at a time, for a shard is held beside it."""
    along = size = 0.0
    for rows in (slice(start, start + _ROWS) for start in range(0, len(before), _ROWS)):
        change = exact[rows] - before[rows]
        along += float((rounded[rows].float() - before[rows]).mul_(change).sum())
        size += float(change.square().sum())
    return along / size if size else 1.0


def _files(model: Path) -> dict[str, Path]:
    """The file of each tensor."""
    return {name: file for file in sorted(model.glob("*.safetensors")) for name in safetensors_header(file)}


def _read(files: dict[str, Path], name: str) -> Any:
    from safetensors import safe_open

    with safe_open(files[name], framework="pt") as file:
        return file.get_tensor(name)
