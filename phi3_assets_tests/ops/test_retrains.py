"""Real retrains of unchanged data, with other seeds: how often one of them replaces the champion.

The rules that hold back for other reasons are set wide, so that what is seen is the rule of being better.
"""

import json

import pytest

from phi3_assets.core.home import initialise
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.evaluation.against_champion import judge_against
from phi3_assets.evaluation.findings import Margins
from phi3_assets.evaluation.gain import Gain, p_better
from phi3_assets.evaluation.noise import training_noise
from phi3_assets.release.champion import Champion
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets_tests.conftest import write_rows
from phi3_assets_tests.evaluation.beside import beside
from phi3_assets_tests.tiny_graph import TINY

ALPHA = 0.05
WIDE = {
    "gate_alpha": ALPHA,
    "gate_max_loss": 1.0,
    "gate_max_slice_loss": 1.0,
    "gate_max_perplexity_growth": 1e9,
    "gate_min_speed_kept": 0.0,
}


def retrain(home, phi3_here, seeds):
    """Train with each seed and let the gate decide; the decisions."""
    initialise(home)
    for file in (home / "datasets").iterdir():
        file.unlink()
    write_rows(home / "datasets" / "codes.csv", 160)
    wide = [part for name, value in WIDE.items() for part in ("--set", f"{name}={value}")]
    for seed in range(seeds):
        phi3_here("run", *TINY, "--set", f"seed={seed}", "--set", f"data_seed={seed}", *wide, home=home)
    return [entry.decision for entry in champion(home).history()]


def champion(home):
    return Champion(LocalArtifactStore(home=str(home)).ledger, "operations-desk")


def better(decision):
    return next(one for one in decision["findings"] if one["rule"] == "better_than_champion")


def passes_without_training_noise(decision):
    """What the rule would have said of these scores if items alone were noise."""
    numbers = better(decision)["numbers"]
    together = next(one["numbers"] for one in decision["findings"] if one["rule"] == "scored_side_by_side")
    found = Gain(numbers["gain"], numbers["error"], together["items"], together["groups"])
    return p_better(found) <= ALPHA and found.mean >= numbers["least"]


def test_the_third_seed_is_not_promoted_for_noise_that_the_recipe_states_too_small(tmp_path, phi3_here):
    """It was: the recipe states 0.01 nats, and these trainings differ by 0.15."""
    first, *others = retrain(tmp_path / "home", phi3_here, 3)
    assert first["promote"]
    assert [decision["promote"] for decision in others] == [False, False]
    assert any(passes_without_training_noise(decision) for decision in others)


@pytest.mark.slow
def test_twelve_seeds_change_the_champion_no_more_often_than_stated(tmp_path, phi3_here):
    home = tmp_path / "home"
    decisions = retrain(home, phi3_here, 12)
    assert [decision["promote"] for decision in decisions] == [True, *[False] * 11]
    assert sum(passes_without_training_noise(decision) for decision in decisions[1:]) >= 2
    # All pairs, as first looks, on what each report holds of its int4 model; the noise is that of the twelve.
    reports = [
        [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(home.glob("gen-model/eval_report/*/items.jsonl"))
    ]
    assert len(reports) == 12
    noise = training_noise(decisions, "nll", 0.0)
    margins = Margins.from_params(load_recipe("tiny-test", WIDE).model_dump())
    promoted = [
        judge_against(beside(ours, theirs, noise=noise), margins)[-1].passed
        for ours in reports
        for theirs in reports
        if ours is not theirs
    ]
    assert sum(promoted) / len(promoted) <= ALPHA
