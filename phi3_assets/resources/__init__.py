"""Dagster resources: which recipe, where artefacts stand, what ops hand to one another, where steps run.

Each has an abstract side that the rest of the project knows, and implementations beside it.
"""
