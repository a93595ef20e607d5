"""All that knows Microsoft Olive: running one pass strictly, the data component, configurations in and out.

What surrounds a pass while it trains or quantises stands in `training` and `quantising`.
"""
