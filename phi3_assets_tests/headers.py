"""Models of real size in a few kilobytes of disk: the headers of their weights, and a file that is a hole."""

import json
from pathlib import Path
from typing import Any

from phi3_assets.models.random_shapes import shape_of


def headers_alone(folder: Path, shape: str) -> None:
    """Write configuration and headers of a shape of `random_shapes`: all that a forecast reads."""
    import torch
    from transformers import AutoModelForCausalLM, Phi3Config

    config = Phi3Config(**shape_of(shape), pad_token_id=0)
    with torch.device("meta"):
        tensors = AutoModelForCausalLM.from_config(config).state_dict()
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    folder.mkdir()
    config.save_pretrained(folder)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
