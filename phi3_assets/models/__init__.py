"""Base models and what is made of them: where each kind comes from, what a directory must hold, where answers end.

Plain Python, no Olive and no Dagster.
"""
