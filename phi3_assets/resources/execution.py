"""Where steps run. `Execution` is abstract; `phi3_assets_tests/resources/execution_contract.py` is its contract.

An implementation gets the call, the inputs and the store, and must leave the artefact published. Whether that happens
in a process here (local.py) or in a job elsewhere changes nothing for anybody else.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.resources.store import ArtifactStore

# Metadata of a step's failure: true when the same step may succeed with nothing changed.
TRANSIENT = "transient"

Context = dg.OpExecutionContext | dg.AssetExecutionContext


@dataclass(frozen=True)
class UserFiles:
    """A folder of the user's own files as an input.

    Attributes:
        path: Where it is here.
        digest: Content digest.
        remote: azureml:// address that it was brought from, which a job can read itself; "": it is from here.
    """

    path: Path
    digest: str
    remote: str = ""


Inputs = Mapping[str, ArtefactRef | UserFiles]
"""What a step reads, by the input's name."""


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show a user's error as its text; retrying it would only fail again. One of the surroundings may pass."""
    try:
        yield
    except (UserError, TransientError) as error:
        passing = isinstance(error, TransientError)
        raise dg.Failure(str(error), {TRANSIENT: dg.MetadataValue.bool(passing)}, allow_retries=passing) from error


class Execution(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]
    """Runs one step somewhere."""

    @abstractmethod
    def run_step(self, context: Context, call: StepCall, inputs: Inputs, store: ArtifactStore) -> Manifest:
        """Run a step whose identity is claimed and has no artefact yet; returns the published artefact's manifest.

        While it runs, log lines go to `context.log` and progress becomes observations of the asset. When the run is
        terminated everything the step started is stopped, and the interrupt is raised again.

        Raises:
            dagster.Failure: The step failed; `allow_retries`, and `TRANSIENT` in its metadata, say whether the same may
                succeed with nothing changed. No artefact and no half of one is left.
        """
