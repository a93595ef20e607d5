"""Base models: where each kind comes from, and what a model directory must hold.

Plain Python, no Olive and no Dagster.
"""
