"""A step of several parts reports one fraction, which never goes back."""

from phi3_assets.core.phases import Phases


def test_parts_follow_one_another():
    told = []
    phases = Phases(lambda **numbers: told.append(numbers), {"first": 3, "second": 1})
    first = phases.part("first")
    first(fraction=0.5, loss=2.0)
    second = phases.part("second")
    second(step=4)
    second(fraction=1.0)
    assert told == [
        {"fraction": 0.0},
        {"fraction": 0.375, "loss": 2.0},
        {"fraction": 0.75},
        {"step": 4},
        {"fraction": 1.0},
    ]
