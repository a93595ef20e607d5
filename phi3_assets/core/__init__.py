"""What everybody may know: the step, its identity and metrics, the manifest, the recipe, the home, memory, errors.

No Dagster, no torch, and nothing of any one step's trade.
"""
