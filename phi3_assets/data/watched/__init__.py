"""A dataset folder as it is watched: what it holds when it is at rest, what was remembered of it, what has changed.

Whether that starts anything is decided in `phi3_assets.automation`.
"""
