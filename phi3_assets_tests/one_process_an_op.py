"""The graph with Dagster's multiprocess executor, which a user may choose instead of ours."""

import dagster as dg

from phi3_assets.definitions import build_defs

defs = dg.Definitions.merge(
    build_defs(),
    dg.Definitions(
        jobs=[
            dg.define_asset_job(
                "one_process_an_op", selection=dg.AssetSelection.all(), executor_def=dg.multiprocess_executor
            )
        ]
    ),
)
