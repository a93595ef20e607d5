"""Steps as command jobs of an Azure Machine Learning workspace, on a compute cluster or on Kubernetes behind Azure Arc.

One job a step, with a name that follows from what it makes: whoever wants the same artefact finds the job that is
making it, so a Dagster process that was restarted goes on with the job it had started and pays once. Jobs publish
nothing by themselves; an artefact appears when its job has ended well and what it left was verified.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg
import pydantic

from phi3_assets.azure.settings import AzureSettings, load_settings
from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.resources.execution import Execution, UserFiles, readable_errors
from phi3_assets.resources.store import ArtifactStore

# Where a store is, which is not for one run to choose.
_OF_THE_STORE = {"subscription_id", "resource_group", "workspace", "datastore", "prefix"}
Context = dg.OpExecutionContext | dg.AssetExecutionContext

# Generated from the settings, so that none can be forgotten here or described in two ways.
_fields: dict[str, Any] = {
    name: (
        (field.annotation if field.annotation in (int, float) else str) | None,
        pydantic.Field(default=None, description=f"{field.description} Not given: as in the environment."),
    )
    for name, field in AzureSettings.model_fields.items()
    if name not in _OF_THE_STORE
}
_Fields: Any = pydantic.create_model("_Fields", __base__=Execution, **_fields)


class AzureMLExecution(_Fields):  # type: ignore[misc]
    """Runs each step as a command job; any setting given here replaces the environment's."""

    observe_every_s: float = pydantic.Field(
        default=5, gt=0, description="Least seconds between two progress points in the UI."
    )

    def run_step(
        self,
        context: Context,
        call: StepCall,
        inputs: Mapping[str, ArtefactRef | UserFiles],
        store: ArtifactStore,
        *,
        arc: bool = False,
    ) -> Manifest:
        """See `Execution.run_step`; with `arc` the compute must be a Kubernetes cluster."""
        # Loaded by those who use it, and not by every page of the UI.
        from phi3_assets.azure.clients import clients_of
        from phi3_assets.resources.azureml_attempt import Attempt
        from phi3_assets.resources.blob_store import BlobArtifactStore

        with readable_errors():
            if not isinstance(store, BlobArtifactStore):
                raise UserError(
                    "A job on Azure reads and writes artefacts of a store in Azure, and this one is on a disk. Set "
                    "PHI3_STORE=azure_blob, or PHI3_EXECUTION=azureml for the whole deployment."
                )
            settings = load_settings({**os.environ, "PHI3_HOME": str(store.home_path)}, self._given())
            attempt = Attempt(context, clients_of(settings), call, store, arc=arc)
            return attempt.run(inputs, self.observe_every_s)

    def _given(self) -> dict[str, Any]:
        return {name: value for name in _fields if (value := getattr(self, name)) is not None}
