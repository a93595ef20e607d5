"""Which of the executions runs a step: chosen for all of them, and asset by asset."""

import os
from collections.abc import Mapping

import dagster as dg
from pydantic import Field

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.core.manifest import Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.resources.azureml_execution import AzureMLExecution
from phi3_assets.resources.execution import Context, Execution, Inputs
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import EVAL_REPORT, STEPS

VARIABLE = "PHI3_EXECUTION"
LOCAL, AZUREML, AZURE_ARC = CHOICES = ("local", "azureml", "azure_arc")


def chosen(env: Mapping[str, str], where: str = "", assets: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each step runs, by its name: what is given here for it, else for all, else what the environment says.

    Args:
        env: PHI3_EXECUTION, and for a single asset such as PHI3_EXECUTION_LORA_ADAPTER.
        where: For all of them; "": the environment's.
        assets: For single ones.

    Raises:
        UserError: An unknown place or asset; says which there are.
    """
    given = dict(assets or {})
    for name in given:
        if name not in STEPS:
            raise UserError(f"assets: {name!r} is no asset.{nearest(name, list(STEPS))} There are {', '.join(STEPS)}.")
    variables = {f"{VARIABLE}_{name.upper()}": name for name in STEPS}
    for variable in env:
        if variable.startswith(f"{VARIABLE}_") and variable not in variables:
            raise UserError(f"{variable} names no asset.{nearest(variable, list(variables))}")
    result = {}
    for variable, name in variables.items():
        for said, value in (
            (f"assets: {name}", given.get(name)),
            ("where", where),
            (variable, env.get(variable)),
            (VARIABLE, env.get(VARIABLE)),
            ("", LOCAL),
        ):
            if value:
                if value not in CHOICES:
                    raise UserError(
                        f"{said}={value!r}: choose one of {', '.join(CHOICES)}.{nearest(value, list(CHOICES))}"
                    )
                result[name] = value
                break
    return result


class ChosenExecution(Execution):
    """Hands each step to the execution that is chosen for it."""

    local: dg.ResourceDependency[LocalExecution]
    azureml: dg.ResourceDependency[AzureMLExecution]
    where: str = Field(
        default="",
        description=f"Where steps run: {', '.join(CHOICES)}; empty: {VARIABLE}, else {LOCAL}.",
    )
    assets: dict[str, str] = Field(
        default={},
        description="Where single steps run instead, by asset, such as {eval_report: local}; also "
        f"{VARIABLE}_EVAL_REPORT.",
    )

    def run_step(self, context: Context, call: StepCall, inputs: Inputs, store: ArtifactStore) -> Manifest:
        """See `Execution.run_step`."""
        places = chosen(os.environ, self.where, self.assets)
        # A comparison is no asset; it scores as eval_report does, so it runs where that does.
        where = places.get(call.step, places[EVAL_REPORT.name])
        if where == LOCAL:
            return self.local.run_step(context, call, inputs, store)
        return self.azureml.run_step(context, call, inputs, store, arc=where == AZURE_ARC)
