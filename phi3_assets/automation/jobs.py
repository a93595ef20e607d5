"""The jobs of the graph, and when they run by the clock."""

import dagster as dg

# In-process, because every op is thin: all that is heavy runs in the worker's own process. A process per op would
# only import Dagster twenty times.
retrain = dg.define_asset_job(
    "retrain",
    selection=dg.AssetSelection.all(),
    executor_def=dg.in_process_executor,
    description="The whole graph, from the files in PHI3_HOME/datasets to the release; what stands already is reused.",
)

nightly = dg.ScheduleDefinition(
    name="nightly",
    job=retrain,
    cron_schedule="0 2 * * *",
    description="The whole graph each night at 2:00 UTC, whatever holds the sensor new_data back. Where nothing has "
    "changed, all is reused in seconds.",
)
