"""The step file: all that a worker is handed."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.step import StepCall


@dataclass(frozen=True)
class StepInput:
    """One input directory.

    Attributes:
        path: The directory, on the machine that runs the step.
        digest: Content digest that it must have.
        artefact: Which artefact it is; None: plain files of the user's.
    """

    path: str
    digest: str
    artefact: ArtefactRef | None


@dataclass(frozen=True)
class StepFile:
    """What the worker is handed, as JSON.

    Attributes:
        call: Step, parameters, input digests, library versions, settings.
        inputs: Where the inputs are.
        output: Empty directory to fill.
        work: Directory for checkpoints; belongs to this identity.
        cache: Directory for downloads.
        execution: Name of the execution, for the record.
    """

    call: StepCall
    inputs: dict[str, StepInput]
    output: str
    work: str
    cache: str
    execution: str

    def to_json(self) -> str:
        """The text of the step file."""
        return json.dumps(
            {
                "call": self.call.to_dict(),
                "inputs": {name: asdict(item) for name, item in self.inputs.items()},
                "output": self.output,
                "work": self.work,
                "cache": self.cache,
                "execution": self.execution,
            },
            indent=1,
        )

    @classmethod
    def from_json(cls, text: str) -> "StepFile":
        """Inverse of `to_json`."""
        value = json.loads(text)
        return cls(
            call=StepCall(**value.pop("call")),
            inputs={name: _input(item) for name, item in value.pop("inputs").items()},
            **value,
        )


def _input(value: dict[str, Any]) -> StepInput:
    artefact = value["artefact"]
    return StepInput(value["path"], value["digest"], ArtefactRef(**artefact) if artefact else None)
