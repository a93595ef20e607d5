"""The benchmark of int4 chooses by what its bars ask for, and finds itself in the list of benchmarks."""

import pytest

from benchmarks.__main__ import names
from benchmarks._frontier import best
from benchmarks.quantize import BARS, POINTS, RECOVERED, judged
from phi3_assets.core.errors import UserError
from phi3_assets.core.recipe_file import load_recipe

TORCH = {"base": {"nll": 4.0}, "merged": {"exact_match": 1.0, "nll": 0.01, "general_nll": 4.5}}


def point(size: float, exact_match: float, nll: float, general_nll: float) -> dict[str, float]:
    return {
        "bytes": size,
        "exact_match": exact_match,
        "nll": nll,
        "general_nll": general_nll,
        "gain_kept": (4.0 - nll) / 3.99,
    }


def test_what_is_small_enough_and_keeps_the_answers_is_chosen() -> None:
    found = {
        "default": point(200, 0.9, 0.5, 4.6),
        "large": point(90, 1.0, 0.01, 4.5),
        "forgets answers": point(79, 0.9, 0.012, 4.5),
        "good": point(80, 1.0, 0.015, 4.6),
        "better": point(79, 0.99, 0.013, 4.55),
    }
    assert best(found, TORCH, BARS, "default") == "better"
    with pytest.raises(UserError, match="No point takes at most 0.4 of the bytes of default"):
        best({"default": found["default"], "large": found["large"]}, TORCH, BARS, "default")


def test_ratios_are_those_that_the_bars_name() -> None:
    chosen = point(80, 0.98, 0.015, 4.6) | {"tokens_per_s": 120}
    found = judged(chosen, point(200, 0.9, 0.5, 4.6) | {"tokens_per_s": 100}, TORCH["merged"])
    assert found.keys() == BARS.keys()
    assert (found["size"], found["exact_match"], found["speed"]) == (0.4, 0.98, 1.2)


def test_points_are_recipes_and_the_default_recipe_is_one_of_them() -> None:
    made = {name: load_recipe("smol-cpu", fields) for name, fields in POINTS.items()}
    assert set(RECOVERED) <= made.keys()
    assert load_recipe("smol-cpu") in made.values()


def test_helpers_are_no_benchmarks() -> None:
    assert "quantize" in names()
    assert not [name for name in names() if "frontier" in name]
