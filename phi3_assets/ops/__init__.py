"""The ops assets are made of: planning a step, running it, deciding about a release, and what the UI shows.

Here Dagster meets the steps; no science, and nothing about where a step runs.
"""
