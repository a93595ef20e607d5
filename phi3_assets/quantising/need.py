"""What quantising will need of memory and disk, reckoned from the model's headers before anything is loaded.

Without the recovery, which reckons for itself (`forecast`). The passes come one after another, and each lets go of what
it held, so the largest counts. What each holds was read in Olive and in onnxruntime-genai 0.14, and measured on 1, 2, 4
and 8 layers of Phi-3-mini's widths; `python -m benchmarks rehearsal` measures all 32.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from phi3_assets.core.forecast import Forecast
from phi3_assets.core.memory import gib
from phi3_assets.models.directory import tensor_headers
from phi3_assets.models.sizes import NUMBER_BYTES, memory_bytes
from phi3_assets.olive.corpus import read_calibration
from phi3_assets.olive.int4_configs import calibration_tokens
from phi3_assets.quantising.size import default_bytes, int4_bytes

# ModelBuilder without "gptq": the whole model and its graph in float32, and what of it is quantised or copied.
_BYTES_PER_NUMBER = 10.3
# What its quantisers take beside that, per number of the largest matrix, which is an embedding.
_QUANTISER_BYTES = {"default": 0.0, "rtn_last": 12.5, "k_quant_last": 36.0, "k_quant_mixed": 36.0}
# While a linear layer is packed: its integers before they are packed, and its float32 numbers piece by piece.
_PACKING_BYTES = 6
# Rtn has an embedding in float32 three times over, beside its integers.
_ROUNDING_BYTES = 14
# Integers as the builder reads them, those of its graph, and what is on its way to the file.
_BUILDER_COPIES = 2.4


def forecast(
    model: Path, params: Mapping[str, Any], train_file: Path | None, replay_file: Path | None = None
) -> Forecast:
    """Of quantising `model`; the libraries must be loaded already, for they count.

    Args:
        model: Its directory.
        params: Recipe fields of the step.
        train_file: The corpus, for "gptq".
        replay_file: As `quantising_passes`.
    """
    tokens = calibration_tokens(model)
    if train_file:
        rows = read_calibration(train_file, tokens, params["eval_share"], replay_file)
        tokens = sum(len(row["input_ids"]) for row, _ in rows)
    gptq = _gptq_bytes(model, params, tokens)
    if params["int4_algorithm"] == "gptq":
        # What each of the passes leaves stands until the step is done; the first leaves the embeddings as they were.
        disk = 4 * int4_bytes(model, params) + _number_bytes(model) * sum(map(prod, _matrices(model, layers=False)))
        return Forecast("Quantising", gptq, disk)
    quantiser = _QUANTISER_BYTES[params["int4_algorithm"]] * max(map(prod, _matrices(model, layers=False)))
    memory = int(memory_bytes(model, 1) * _BYTES_PER_NUMBER + quantiser)
    way_out = f"Set int4_algorithm: gptq, which takes {gib(gptq)} beside the libraries"
    way_out += ", or run the step on a machine with more memory."
    return Forecast("Quantising", memory, 2 * default_bytes(model, params), way_out)


def _gptq_bytes(model: Path, params: Mapping[str, Any], tokens: int) -> int:
    """Most that one of the passes takes."""
    layers, embeddings = _matrices(model, layers=True), _matrices(model, layers=False)
    number = _number_bytes(model)
    one = set(layers)  # the matrices of one layer, as all have the same
    hessians: int = 4 * sum(columns**2 for _, columns in one)
    # One matrix at a time: its Hessian's inverse, twice; its weights in float32, their error and their rounding.
    rounding = max(4 * (2 * columns**2 + 3 * rows * columns) for rows, columns in one)
    # Hidden states of all tokens before a layer and after it.
    hidden: int = 2 * number * tokens * min(columns for _, columns in one)
    packed = sum(map(prod, layers)) * params["int4_bits"] // 8 + _PACKING_BYTES * max(map(prod, one))
    most: int = max(
        memory_bytes(model) + max(hessians + rounding + hidden, packed),
        _ROUNDING_BYTES * max(map(prod, embeddings)),
        int(_BUILDER_COPIES * int4_bytes(model, params)),
    )
    return most


def _matrices(model: Path, *, layers: bool) -> list[tuple[int, int]]:
    """Rows and columns of the linear layers, or of the embeddings."""
    return [
        (tensor["shape"][0], tensor["shape"][1])
        for name, tensor in tensor_headers(model).items()
        if len(tensor["shape"]) == 2 and (".layers." in name) == layers
    ]


def _number_bytes(model: Path) -> int:
    return max(NUMBER_BYTES[tensor["dtype"]] for tensor in tensor_headers(model).values())
