"""What a step is: a pure function of parameters and input artefacts that fills one directory.

Here stand the step's description (`Step`), its identity, and what its function is handed (`StepContext`). No Dagster
and no torch: both the orchestrator and the worker import this.
"""

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # a worker is handed the parameters, and need not import pydantic
    from phi3_assets.core.recipe import Recipe


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    """SHA-256 hex digest of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class ProgressSink(Protocol):
    """Where a running step tells how far it is; every keyword is a number that can be plotted."""

    def __call__(self, **numbers: float) -> None:
        """Report these numbers."""


@dataclass(frozen=True)
class StepContext:
    """All that a step's function may look at.

    Attributes:
        params: The recipe fields named by the step.
        inputs: Directory of each input, by name. Read only.
        output: An empty directory; what the function leaves there becomes the artefact.
        work: A directory that outlives a kill and belongs to this identity alone: checkpoints.
        cache: Where downloads are kept between runs.
        log: Shows one line to the user, in the Dagster event log. Never pass text of the user's data.
        progress: Reports numbers while the step runs, such as `fraction`, `loss`, `tokens_per_s`.
        note: Writes one line to the step's own log and nowhere else, for what would flood the event log.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    output: Path
    work: Path
    cache: Path
    log: Callable[[str], None] = print
    progress: ProgressSink = field(default=lambda **numbers: None)
    note: Callable[[str], None] = print


@dataclass(frozen=True)
class Step:
    """One row of the table in `phi3_assets.steps`.

    Attributes:
        name: Name of the step, of its artefact's kind and of the asset.
        code_version: Raised by hand when a change of the code changes the result.
        inputs: Names of the steps whose artefacts this one reads.
        recipe_fields: The recipe fields that can change the result; no other field reaches the function.
        libraries: Distributions whose version can change the result.
        function: "module:function" of `(StepContext) -> metrics`; imported by the worker alone, because it may
            import torch. `metrics` is a JSON object and is kept in the manifest, outside the content digest.
        on_device: Computes with a model, and wants the device it runs on to itself: two trainings side by side on one
            GPU end in out-of-memory.
    """

    name: str
    code_version: str
    inputs: tuple[str, ...]
    recipe_fields: tuple[str, ...]
    libraries: tuple[str, ...]
    function: str
    on_device: bool = False

    def params(self, recipe: "Recipe") -> dict[str, Any]:
        """The part of the recipe that can change this step's result."""
        return {name: getattr(recipe, name) for name in self.recipe_fields}

    def load(self) -> Callable[[StepContext], dict[str, Any]]:
        """Import the step's function."""
        module, _, name = self.function.partition(":")
        return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StepCall:
    """A step, its parameters and the content digests of what it reads: everything its identity is made of.

    Attributes:
        step: Name of the step.
        code_version: The step's.
        params: Recipe fields and their values.
        inputs: Content digest of each input, by name.
        libraries: Version of each library that can change the result.
    """

    step: str
    code_version: str
    params: dict[str, Any]
    inputs: dict[str, str]
    libraries: dict[str, str]

    @property
    def identity(self) -> str:
        """SHA-256, 64 hex digits. Where the step runs is not part of it."""
        return sha256_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `StepCall(**d)` is its inverse."""
        return {
            "step": self.step,
            "code_version": self.code_version,
            "params": self.params,
            "inputs": self.inputs,
            "libraries": self.libraries,
        }


def installed_versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Version of each distribution, without importing any of them.

    Raises:
        importlib.metadata.PackageNotFoundError: One is not installed.
    """
    return {name: importlib.metadata.version(name) for name in sorted(libraries)}
