"""Invented evaluations put side by side, as champion_comparison leaves them."""

import dataclasses

from phi3_assets.evaluation.findings import Margins
from phi3_assets.evaluation.noise import Noise
from phi3_assets.evaluation.side_by_side import CANDIDATE, CHAMPION, SideBySide

MARGINS = Margins(
    metric="nll",
    alpha=0.05,
    min_items=20,
    min_effect=0.01,
    training_noise=0.01,
    max_loss=0.02,
    max_nll_loss=0.05,
    max_slice_loss=0.1,
    max_perplexity_growth=1.15,
    max_bytes_growth=1.1,
    min_speed_kept=0.7,
    learnt_answers=True,
)
NUMBERS = {"general_nll": 3.6, "bytes": 100_000_000, "tokens_per_s": 100.0}


def beside(ours, champion, earlier=(), noise=0.01, known=None, look=1, **numbers):
    """Candidate, champion and earlier champions on the candidate's items; `numbers` are the candidate's.

    Each is a list of records whose int4 scores count; all are of the same items in the same order.
    """
    models = {CANDIDATE: ours, CHAMPION: champion, **{f"earlier_{n}": one for n, one in enumerate(earlier)}}
    records = [
        {**record, "variants": {name: its[place]["variants"]["int4"] for name, its in models.items()}}
        for place, record in enumerate(ours)
    ]
    known = {record["id"] for record in ours} if known is None else known
    every = {name: dict(NUMBERS) for name in models}
    every[CANDIDATE] |= numbers
    return SideBySide(records, every, known, noise if isinstance(noise, Noise) else Noise(noise), look)


def margins(**changes):
    return dataclasses.replace(MARGINS, **changes)
