"""Weights written in shards, so that what is in memory at once is one shard and not the model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.files import write_json

SHARD_BYTES = 10**9
"""Most bytes of a shard that holds more than one tensor."""
# As transformers names them.
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def write_shards(output: Path, sizes: Mapping[str, int], tensor: Callable[[str], Any]) -> None:
    """Write *.safetensors, and an index where there is more than one.

    Args:
        output: A directory.
        sizes: Bytes of each tensor by its name, in the order in which they are written.
        tensor: Gives a tensor when its turn has come.
    """
    from safetensors.torch import save_file

    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    files: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: tensor(name) for name in names}, output / file, metadata={"format": "pt"})
        files |= dict.fromkeys(names, file)
    if len(shards) > 1:
        write_json(output / INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": files})
