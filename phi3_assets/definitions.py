"""The code location. Loading it imports neither torch, transformers, olive nor azure; tests hold that."""

import gc
import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

# What importing Dagster made stays for as long as the process. Frozen, it is walked by no full collection any more: one
# came in the midst of the imports below and cost a quarter of them, more come in a run, and the last at its end.
gc.freeze()

from phi3_assets.assets import data, evaluation, model, sources
from phi3_assets.automation import failures, jobs, policies, sensors
from phi3_assets.checks import data as data_checks
from phi3_assets.checks import gate as gate_checks
from phi3_assets.checks import model as model_checks
from phi3_assets.core.web_address import web_port
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.chosen_execution import ChosenExecution, chosen
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets.resources.pointers import PointerIOManager
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.stores import make_store


def build_defs(**overrides: Any) -> dg.Definitions:
    """The asset graph with its resources.

    Args:
        overrides: Resources that replace the usual ones, by name: recipe, execution, store.

    Raises:
        UserError: The environment's PHI3_EXECUTION, or that of an asset, names no execution, or PHI3_WEB_PORT no port.
    """
    # What is wrong is told when the location loads, not in the midst of a run.
    chosen(os.environ)
    web_port()
    local, azureml = LocalExecution.configure_at_launch(), AzureMLExecution.configure_at_launch()
    resources: Mapping[str, Any] = {
        "recipe": RecipeResource(),
        "execution": ChosenExecution(local=local, azureml=azureml),
        "local": local,
        "azureml": azureml,
        "store": make_store(),
        **overrides,
    }
    loaded = dg.load_assets_from_modules([data, model, evaluation])
    made = [asset for asset in loaded if isinstance(asset, dg.AssetsDefinition)]
    return dg.Definitions(
        assets=[
            sources.datasets,
            *dg.map_asset_specs(policies.with_policies, made),
        ],
        asset_checks=[*data_checks.ALL, *model_checks.ALL, gate_checks.model_is_fit],
        jobs=[jobs.retrain],
        schedules=[jobs.nightly],
        sensors=[sensors.new_data, policies.follow_data, sensors.runs_in_order, failures.failed_runs],
        resources={**resources, "io_manager": PointerIOManager(store=resources["store"])},
        executor=dg.in_process_executor,
    )


defs = build_defs()
