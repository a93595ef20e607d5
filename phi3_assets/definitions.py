"""The code location. Loading it imports neither torch, transformers, olive nor azure; tests hold that."""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg

from phi3_assets import automation, checks
from phi3_assets.assets import data, evaluation, model
from phi3_assets.errors import UserError, nearest
from phi3_assets.resources.artifacts import LocalArtifactStore, PointerIOManager
from phi3_assets.resources.local import LocalExecution
from phi3_assets.resources.recipe import RecipeResource


def local() -> dict[str, Any]:
    """Steps as processes on this machine, artefacts on its disk."""
    return {"execution": LocalExecution(), "store": LocalArtifactStore()}


DEPLOYMENTS = {"local": local}


def build_defs(**overrides: Any) -> dg.Definitions:
    """The asset graph with its resources.

    Args:
        overrides: Resources that replace the deployment's, by name: recipe, execution, store.

    Raises:
        UserError: The environment's PHI3_EXECUTION names no deployment.
    """
    name = os.environ.get("PHI3_EXECUTION") or "local"
    if name not in DEPLOYMENTS:
        raise UserError(
            f"PHI3_EXECUTION={name!r}: choose one of {', '.join(DEPLOYMENTS)}.{nearest(name, list(DEPLOYMENTS))}"
        )
    resources: Mapping[str, Any] = {"recipe": RecipeResource(), **DEPLOYMENTS[name](), **overrides}
    return dg.Definitions(
        assets=dg.load_assets_from_modules([data, model, evaluation]),
        asset_checks=checks.ALL,
        jobs=[automation.retrain],
        sensors=[automation.new_data],
        resources={**resources, "io_manager": PointerIOManager(store=resources["store"])},
        executor=dg.in_process_executor,
    )


defs = build_defs()
