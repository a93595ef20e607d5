"""Rounding by chance: what is smaller than a type tells apart survives in the mean over many numbers."""

from typing import Any

_ROWS = 512
"""Rounded at once, so that little is held beside a large matrix."""


def round_by_chance(values: Any, dtype: Any, seed: int) -> Any:
    """Round each number to one of its two neighbours in `dtype`, the likelier the nearer it is.

    To the nearest, each of many small changes is lost; so the sum of them arrives, with about half as much noise again.

    Args:
        values: float32 (rows, columns).
        dtype: A torch type of floating point.
        seed: Of the chance; the same numbers are then rounded to the same.

    Returns:
        `dtype` (rows, columns); values themselves where `dtype` is float32.
    """
    import torch

    if dtype == values.dtype:
        return values
    chance = torch.Generator().manual_seed(seed)
    limits = torch.finfo(dtype)
    rounded = torch.empty_like(values, dtype=dtype)
    for start in range(0, len(values), _ROWS):
        part = values[start : start + _ROWS]
        # A number lies in [2^(e-1), 2^e), where neighbours are 2^(e-1) eps apart; the least are evenly spaced.
        spacing = torch.ldexp(torch.full_like(part, limits.eps), part.frexp().exponent - 1)
        spacing.clamp_(min=limits.smallest_normal * limits.eps)
        steps = part / spacing
        below = steps.floor()
        below += torch.rand(part.shape, generator=chance) < steps - below
        rounded[start : start + _ROWS] = below.mul_(spacing).clamp_(limits.min, limits.max).to(dtype)
    return rounded
