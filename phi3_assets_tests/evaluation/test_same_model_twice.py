"""A/A tests: 200 gates of a model against itself promote no more often than the recipe states (gate_alpha, 5 %)."""

import copy
import random

from scipy import stats

from phi3_assets.evaluation.gate import decide
from phi3_assets_tests.evaluation.test_gate import THRESHOLDS, make, summed

GATES = 200
# At a true rate of alpha more promotions than this are seen in less than one of a hundred such tests: 18.
MOST = int(stats.binom.ppf(0.99, GATES, THRESHOLDS.alpha))


def noisy(records, source):
    """The same model trained once more: each item a little easier or harder, no model better than the other."""
    again = copy.deepcopy(records)
    for record in again:
        own = record["variants"]["int4"]
        own["nll"] = round(max(0.01, own["nll"] + source.gauss(0, 0.1)), 6)
    return again


def test_two_trainings_that_differ_by_chance():
    """A new test set and two new trainings for each gate."""
    promoted = 0
    for seed in range(GATES):
        source = random.Random(1000 + seed)
        _, records = make(items=30, seed=seed)
        promoted += decide(*summed(noisy(records, source)), THRESHOLDS, noisy(records, source)).promote
    assert promoted <= MOST
    # The other way round: a gate that never promotes anything would pass the test above.
    assert promoted >= stats.binom.ppf(0.01, GATES, THRESHOLDS.alpha)


def test_the_champion_resampled_against_itself():
    """One champion; each gate draws its items anew from the champion's (bootstrap), and a second training of it."""
    _, champion = make(items=30, seed=7)
    promoted = 0
    for seed in range(GATES):
        source = random.Random(5000 + seed)
        drawn = [copy.deepcopy(source.choice(champion)) for _ in champion]
        for number, record in enumerate(drawn):
            record["id"] = f"row-{number}"  # an item that was drawn twice counts as two
        promoted += decide(*summed(noisy(drawn, source)), THRESHOLDS, noisy(drawn, source)).promote
    assert promoted <= MOST


def test_the_very_same_scores_never_promote():
    for seed in range(5):
        scores, records = make(items=30, seed=seed)
        assert not decide(scores, records, THRESHOLDS, records).promote
