"""How far building the int4 model is: which parts it has, and how far a pass of Olive's is that reports nothing itself.

Olive's passes take no callback. Gptq hands each layer to a method, which a class of its own can count; the model
builder prints a line for each layer that it reads.
"""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.step import ProgressCallback
from phi3_assets.models.directory import tensor_headers

SENSITIVITY, RECOVERY, PROOF = "sensitivity", "recovery", "proof"
# On the default model and two cores. All grow with the model's weights, so their shares hold for others.
_SECONDS = {"gptq": 42.0, "rtn": 2.0, "builder": 4.0, "tie": 1.0}
_SENSITIVITY_S, _RECOVERY_STEP_S, _RECOVERY_REST_S, _PROOF_S = 8.0, 2.85, 16.0, 1.0
_BUILDER_READS = 0.5
"""Share of the builder's time after which it has read all layers, and saves."""


def seconds_of(passes: Collection[str], recovery_steps: int, *, sensitivity: bool) -> dict[str, float]:
    """The parts in their order, and how long each takes relative to the others.

    Args:
        passes: Names of Olive's passes that are to run.
        recovery_steps: Steps of the recovery before the builder; 0: there is none.
        sensitivity: Whether layers are measured first.
    """
    parts = {SENSITIVITY: _SENSITIVITY_S} if sensitivity else {}
    for name in passes:
        if name == "builder" and recovery_steps:
            parts[RECOVERY] = _RECOVERY_REST_S + _RECOVERY_STEP_S * recovery_steps
        parts[name] = _SECONDS[name]
    return {**parts, PROOF: _PROOF_S}


def counting_gptq(model: Path, progress: ProgressCallback) -> Any:
    """Olive's Gptq, which reports how many of the model's linear layers are done, and holds the model once.

    Args:
        model: Hugging Face layout.
        progress: Takes the fraction.

    Returns:
        A subclass with the same parameters and results.
    """
    from olive.passes.pytorch import gptq

    layers = sum(
        ".layers." in name and name.endswith(".weight") and len(tensor["shape"]) > 1
        for name, tensor in tensor_headers(model).items()
    )

    class Gptq(gptq.Gptq):  # type: ignore[misc]
        """Olive's pass, layer by layer."""

        done = 0

        def process_module(self, module: Any, *args: Any, **kwargs: Any) -> None:
            mapped = module.weight.data
            super().process_module(module, *args, **kwargs)
            # Into the pages of the old numbers, which would stay in memory beside the new: they are mapped by the file.
            module.weight.data = mapped.copy_(module.weight.data)
            self.done += 1
            progress(fraction=min(self.done / layers, 1.0))

    return Gptq


def builder_lines(config: Mapping[str, Any], progress: ProgressCallback) -> Callable[[str], None]:
    """What listens to the lines of the model builder.

    Args:
        config: The model's config.json.
        progress: Takes the fraction.
    """

    def printed(line: str) -> None:
        if found := re.fullmatch(r"Reading layer (\d+)", line):
            progress(fraction=_BUILDER_READS * (int(found[1]) + 1) / config["num_hidden_layers"])

    return printed
