"""How scales and norms are learnt, end to end and block by block alike."""

import math
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.quantising.blocks import learnt

STEP_ROWS = 8
"""Rows of one optimiser step."""
WARM_UP_STEPS = 10
# Of the relative change of a scale; the largest scale of the default model moves by a tenth in 100 steps.
LEARNING_RATE = 3e-3
# Norms are in all positions' way, and are learnt more slowly than scales.
NORM_LEARNING_RATE = LEARNING_RATE / 5
PROBE_ROWS = 32
"""Rows whose divergence is measured before and after."""
LOG_STEPS = 10


def optimizer_of(student: Any) -> Any:
    """AdamW over all that is learnt of a module."""
    import torch

    groups = [
        {"params": [one for name, one in learnt(student) if name.endswith(".change") == scales], "peak": peak}
        for scales, peak in ((True, LEARNING_RATE), (False, NORM_LEARNING_RATE))
    ]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, weight_decay=0.0)


def set_rate(optimizer: Any, step: int, steps: int) -> None:
    """Set the learning rates of a step, counted from 0."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * rate(step, steps)


def rate(step: int, steps: int) -> float:
    """Learning rate of a step, counted from 0, as a share of its peak: warm-up, then a cosine to 0."""
    warm_up = min(WARM_UP_STEPS, steps // 4)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def refuse_broken(loss: float, step: int, steps: int) -> None:
    """Refuse a loss that is not finite.

    Raises:
        UserError: It is not.
    """
    if not math.isfinite(loss):
        raise UserError(
            f"Recovery broke down: the loss is {loss} at step {step} of {steps}. Set int4_recovery_steps: 0 to take "
            "the quantised model as it is."
        )
