"""Base models: where each kind comes from, and checks on model directories. Plain Python, no Olive and no Dagster."""
