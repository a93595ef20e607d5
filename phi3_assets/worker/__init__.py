"""The process that runs one step: `python -m phi3_assets.worker STEP_FILE`.

Also what starts, stops and forks such processes. No Dagster beside Pipes, and nothing of what a step does.
"""
