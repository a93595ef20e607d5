"""Rounding by chance: to neighbours alone, in the mean exactly, and the same each time."""

import pytest

from phi3_assets.models.rounding import round_by_chance

TYPES = ["bfloat16", "float16"]


@pytest.mark.parametrize("name", TYPES)
def test_goes_to_one_of_two_neighbours_and_leaves_what_is_exact(name: str) -> None:
    import torch

    dtype = getattr(torch, name)
    # From the least that float16 can tell apart, evenly spaced there, up to large ones.
    values = torch.randn(600, 64) * 10.0 ** torch.randint(-7, 4, (600, 64))
    nearest, rounded = values.to(dtype), round_by_chance(values, dtype, 0)
    other = torch.where(nearest.float() < values, _next(nearest, 1), _next(nearest, -1))
    assert ((rounded == nearest) | (rounded == other)).all()
    assert not torch.equal(rounded, nearest)
    assert torch.equal(round_by_chance(nearest.float(), dtype, 0), nearest)
    assert torch.equal(round_by_chance(values, dtype, 0), rounded)
    assert not torch.equal(round_by_chance(values, dtype, 1), rounded)


@pytest.mark.parametrize("name", TYPES)
def test_changes_too_small_for_the_type_arrive_in_the_mean(name: str) -> None:
    import torch

    dtype = getattr(torch, name)
    torch.manual_seed(7)  # not that of the chance, or both draw the same
    before = torch.randn(2000, 500).to(dtype).float()
    change = 1e-4 * before.abs()
    assert torch.equal((before + change).to(dtype).float(), before), "to the nearest nothing of it arrives"
    arrived = round_by_chance(before + change, dtype, 0).float() - before
    assert float((arrived * change).sum() / change.square().sum()) == pytest.approx(1, abs=0.05)


def _next(values, direction):  # type: ignore[no-untyped-def]
    """The neighbour above (1) or below (-1), of numbers that are not zero or on the way through it."""
    import torch

    away = torch.where(values > 0, direction, -direction)
    away = torch.where(values == 0, 1, away)  # the least number, of the sign asked for
    bits = values.view(torch.int16) + away.to(torch.int16)
    stepped = bits.view(values.dtype)
    return torch.where(values == 0, direction * stepped.abs(), stepped)
