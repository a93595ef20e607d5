"""Configurations of Olive's passes from a merged model to int4 ONNX, by the recipe's int4_algorithm."""

import json
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.models.directory import tensor_headers
from phi3_assets.olive import configs, corpus

# Of a layer with more columns than tokens of calibration Gptq knows nothing in the directions left; most of the
# pass's time grows with them.
_CALIBRATION_PER_COLUMN = 4
_LEAST_CALIBRATION = 6_144
# Five times Olive's: where the corpus says little of a weight, it stays what the model learnt of language before.
DAMPING = 0.05
EXACT_BITS = 8
# As ModelBuilder lays its files out; GraphSurgeries would put the weights of a small model into the graph.
EXTERNAL = {"save_as_external_data": True, "external_data_name": "model.onnx.data"}


def quantising_passes(
    model: Path,
    params: Mapping[str, Any],
    max_length: int,
    train_file: Path | None,
    exact: Collection[str] = (),
    replay_file: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Olive's passes from a model to int4 ONNX, in their order: name, and configuration with "type".

    With "gptq", Olive's Gptq chooses each weight of few bits so that a layer's outputs on the corpus stay as they were,
    Rtn takes the embeddings to 8 or 4 bits, ModelBuilder exports, and GraphSurgeries lets input and output embeddings
    share their weights where the model ties them. Otherwise ModelBuilder quantises by itself, weight by weight.

    Args:
        model: The model, or one of the same layers; Hugging Face layout.
        params: Recipe fields of the step.
        max_length: Longest sequence, prompt and answer, in tokens.
        train_file: The corpus, for "gptq".
        exact: Full names of the layers that int4_budget pays for: they get twice int4_bits.
        replay_file: What was learnt beside the corpus, for "gptq"; see `corpus.read_corpus`.

    Raises:
        UserError: "gptq" without a corpus, or with a block size that the model's layers do not divide into.
    """
    builder = {"type": "ModelBuilder", **configs.model_builder(params, max_length)}
    if params["int4_algorithm"] != "gptq":
        return {"builder": builder}
    if train_file is None:
        raise UserError("int4_algorithm gptq needs the corpus; choose another to quantise without one.")
    check_block_size(model, params["int4_block_size"])
    grid = {"group_size": params["int4_block_size"], "sym": params["int4_symmetric"]}
    overrides = {name: {"bits": EXACT_BITS} for name in linear_layers(model, params["int8_modules"])}
    overrides |= {name: {"bits": 2 * params["int4_bits"]} for name in exact}
    calibration = corpus.calibration_config(train_file, calibration_tokens(model), params["eval_share"], replay_file)
    return {
        "gptq": {
            "type": "Gptq",
            "bits": params["int4_bits"],
            **grid,
            "overrides": overrides,
            "damp_percent": DAMPING,
            "data_config": calibration,
        },
        "rtn": {"type": "Rtn", "bits": params["int4_embedding_bits"], **grid, "lm_head": True, "embeds": True},
        "builder": builder,
        "tie": {"type": "GraphSurgeries", "surgeries": [{"surgeon": "TieWordEmbeddings"}], **EXTERNAL},
    }


def calibration_tokens(model: Path) -> int:
    """How many tokens Gptq looks at: in proportion to the model's widest layer."""
    widest: int = max(
        tensor["shape"][1]
        for name, tensor in tensor_headers(model).items()
        if ".layers." in name and len(tensor["shape"]) == 2
    )
    return max(_LEAST_CALIBRATION, _CALIBRATION_PER_COLUMN * widest)


def linear_layers(model: Path, patterns: Collection[str]) -> list[str]:
    """Full names of the layers that end in one of the patterns.

    Args:
        model: Directory of the model.
        patterns: Names or ends of names, with the wildcards of a shell: o_proj, or layers.1?.self_attn.qkv_proj for
            model.layers.10.self_attn.qkv_proj to model.layers.19.self_attn.qkv_proj.

    Raises:
        UserError: No layer fits one of the patterns.
    """
    layers = sorted(
        name.removesuffix(".weight")
        for name, tensor in tensor_headers(model).items()
        if name.endswith(".weight") and len(tensor["shape"]) > 1
    )
    found: set[str] = set()
    for pattern in sorted(patterns):
        fitting = [name for name in layers if fnmatchcase(f".{name}", f"*.{pattern}")]
        if not fitting:
            raise UserError(
                f"int8_modules: the model has no layer {pattern!r}. Phi-3's are qkv_proj, o_proj, gate_up_proj and "
                "down_proj; those of one layer are named as in layers.0.self_attn.qkv_proj."
            )
        found.update(fitting)
    return sorted(found)


def check_block_size(model: Path, block_size: int) -> None:
    """Olive's Gptq takes no rest: every layer's input must be whole blocks.

    Raises:
        UserError: They are not.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for name in ("hidden_size", "intermediate_size"):
        if config[name] % block_size:
            raise UserError(
                f"int4_block_size {block_size} does not divide the model's {name}, {config[name]}, which gptq "
                "needs. Choose a smaller one; 32 suits every model."
            )
