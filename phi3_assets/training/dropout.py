"""Dropout of an adapter on a CPU, where drawing its random numbers was a tenth of a training.

torch draws a number for each element, in one thread whatever the number of cores. Here one draw of 64 bits decides over
four elements, for 16 bits tell well enough whether to drop one.
"""

from functools import cache
from typing import Any

_PARTS = 2**16


def draw_less(model: Any) -> None:
    """Replace the dropout of a PEFT model's adapters if it is on a CPU."""
    import torch
    from peft.tuners.lora import LoraLayer

    if model.device.type != "cpu":
        return
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            for name, dropout in layer.lora_dropout.items():
                if isinstance(dropout, torch.nn.Dropout):
                    layer.lora_dropout[name] = sparing_dropout()(dropout.p)


@cache
def sparing_dropout() -> Any:
    """The module that takes the place of torch's; made when torch is first needed, since importing it takes seconds."""
    import torch

    class SparingDropout(torch.nn.Module):
        """As `torch.nn.Dropout`, from the same generator, but with other draws."""

        def __init__(self, probability: float) -> None:
            """Take the probability that an element is dropped; it is rounded to a multiple of 2^-16."""
            super().__init__()
            self.dropped = round(probability * _PARTS)

        def forward(self, values: Any) -> Any:
            """Drop elements, and scale the others so that the mean stays what it was."""
            if not self.training or not self.dropped:
                return values
            draws = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
            numbers = draws.view(torch.int16)[: values.numel()].view(values.shape)
            kept = numbers >= self.dropped - _PARTS // 2
            return values * kept.to(values.dtype).mul_(_PARTS / (_PARTS - self.dropped))

    return SparingDropout
