"""What everybody may know: the step and its identity, the manifest, the recipe, the home's layout, memory, errors.

No Dagster, no torch, and nothing of any one step's trade.
"""
