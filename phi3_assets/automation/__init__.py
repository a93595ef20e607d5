"""What starts by itself: jobs, sensors, conditions, and the pure decisions behind them (`watch`).

What a run does once it has started belongs to `ops`.
"""
