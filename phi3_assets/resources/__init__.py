"""Dagster resources: which recipe (recipe.py), where artefacts stand (artifacts.py), where steps run (execution.py)."""
