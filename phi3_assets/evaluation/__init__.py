"""Scoring of the four variants, the statistics on the scores, and what people read of them.

Plain Python, no Dagster. `items` is the frozen test set, `torch_scorer` and `genai_scorer` run the models, `metrics`
turns answers into numbers, `report`, `plots` and `present` turn numbers into something to look at.
"""

VARIANTS = ("base", "adapter", "merged", "int4")
