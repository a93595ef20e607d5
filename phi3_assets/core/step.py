"""What a step is: a pure function of parameters and input artefacts that fills one directory.

Here stand the step's description (`Step`), its identity, and what its function is handed (`StepContext`). No Dagster
and no torch: both the orchestrator and the worker import this.
"""

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from phi3_assets.core.shown import Shown

if TYPE_CHECKING:  # a worker is handed the parameters, and need not import pydantic
    from phi3_assets.core.finding import Finding
    from phi3_assets.core.recipe import Recipe


def canonical_json(value: Any) -> str:
    """JSON with sorted keys, no spaces and no NaN: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_of(value: Any) -> str:
    """SHA-256 hex digest of a JSON value's canonical form."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class ProgressCallback(Protocol):
    """Where a running step tells how far it is; every keyword is a number that can be plotted."""

    def __call__(self, **numbers: float) -> None:
        """Report these numbers."""


class Interruption(Protocol):
    """The machine's word that it is about to be taken away; only what can go on later, such as a training, heeds it."""

    def announced(self) -> bool:
        """Whether it is about to be taken away now. It may be spared: then, or when nothing comes of it, False."""

    def checkpoint_written(self) -> None:
        """Called once all that a later attempt needs is in `work`; returns when it is where it outlives the machine."""


class NoInterruption:
    """Of a machine that is not taken away, or not with notice."""

    def announced(self) -> bool:
        """Never."""
        return False

    def checkpoint_written(self) -> None:
        """Nothing more is to be done."""


@dataclass(frozen=True)
class StepContext:
    """All that a step's function may look at.

    Attributes:
        params: The recipe fields that can change the result.
        inputs: Directory of each input, by name. Read only.
        output: An empty directory; what the function leaves there becomes the artefact.
        work: A directory that outlives a kill and belongs to this identity alone: checkpoints.
        cache: Where downloads are kept between runs.
        log: Shows one line to the user, in the Dagster event log. Never pass text of the user's data.
        progress: Reports numbers while the step runs, such as `fraction`, `loss`, `tokens_per_s`.
        note: Writes one line to the step's own log and nowhere else, for what would flood the event log.
        settings: The recipe fields that the step is handed and that cannot change its result, such as how often it
            logs. They are in no identity, so whatever depends on one may not be written to `output`.
        interruption: Says when the machine is about to be taken away.
    """

    params: Mapping[str, Any]
    inputs: Mapping[str, Path]
    output: Path
    work: Path
    cache: Path
    log: Callable[[str], None] = print
    progress: ProgressCallback = field(default=lambda **numbers: None)
    note: Callable[[str], None] = print
    settings: Mapping[str, Any] = field(default_factory=dict)
    interruption: Interruption = field(default_factory=NoInterruption)


@dataclass(frozen=True)
class UserFolder:
    """A folder of the user's own files that a step reads: an input without a manifest, pinned by its content.

    Attributes:
        name: Name of the input.
        what: How errors name it, such as "Dataset folder".
        location: From the recipe to what it says of the place: a path, or an address where the store brings data from;
            "": PHI3_HOME/datasets. None: with this recipe the folder is not read.
    """

    name: str
    what: str
    location: "Callable[[Recipe], str | None]"


@dataclass(frozen=True)
class Step:
    """One row of the table in `phi3_assets.steps`: all that is special about a step, so that nothing else need know it.

    Which recipe fields are its own is said where those are defined, in `phi3_assets.core.recipe`.

    Attributes:
        name: Name of the step, of its artefact's kind and of the asset.
        code_version: Raised by hand when a change of the code changes the result.
        inputs: Names of the steps whose artefacts this one reads.
        libraries: Distributions whose version can change the result.
        function: "module:function" of `(StepContext) -> metrics`; imported by the worker alone, because it may
            import torch. `metrics` is a JSON object and is kept in the manifest, outside the content digest.
        rules: "module:function" of the blocking rules of its artefact: `(metrics, directory, recipe) -> findings`. The
            asset checks ask them, and so does whoever builds on the artefact; "": there are none.
        rules_read: Files of the artefact that the rules read and that may be large; small ones need not be named.
        folder: Folder of PHI3_HOME that its artefacts stand in, each under the step's name.
        reads: Folders of the user's that it reads beside its inputs.
        reads_test_sets: Whether the frozen test sets, once there are any, are an input named "test_sets".
        reads_manifests: Whether what it leaves depends on its inputs' manifests and not on their files alone, as a
            report that names what it is about; then which artefacts they are is in its identity too.
        imports_torch: Whether its worker is best forked from a process that has torch imported.
        without_pandas: Whether its worker starts without pandas, whose import would take longer than a small file.
        shows: What the UI shows of its artefact beside its plain numbers, in this order.
        row_count: The metric that is the number of rows for the UI; "": it has none.
        derived: Properties of the recipe that are in the identity where single fields are not, because the result
            depends on what these come to together.
        on_device: Computes with a model, and wants the device it runs on to itself: two trainings side by side on one
            GPU end in out-of-memory.
        resumes: Leaves sealed checkpoints in its work directory, so that another machine can go on with them.
        reads_hub: Reads from the Hugging Face Hub, and so may need a token.
        progress_of: Asset that its progress is shown with; "": the one of its own name.
        data_parallel: Several processes, on several machines, may work on it together, each on a part of every batch.
    """

    name: str
    code_version: str
    inputs: tuple[str, ...]
    libraries: tuple[str, ...]
    function: str
    folder: str
    reads: tuple[UserFolder, ...] = ()
    reads_test_sets: bool = False
    reads_manifests: bool = False
    imports_torch: bool = False
    on_device: bool = False
    resumes: bool = False
    data_parallel: bool = False
    reads_hub: bool = False
    without_pandas: bool = False
    shows: tuple[Shown, ...] = ()
    row_count: str = ""
    rules: str = ""
    rules_read: tuple[str, ...] = ()
    derived: tuple[str, ...] = ()
    progress_of: str = ""

    def params(self, recipe: "Recipe") -> dict[str, Any]:
        """The part of the recipe that can change this step's result."""
        from phi3_assets.core.recipe import fields_of

        return {name: getattr(recipe, name) for name in (*fields_of(self.name), *self.derived)}

    def settings(self, recipe: "Recipe") -> dict[str, Any]:
        """The part of the recipe that the function is handed and that cannot change its result."""
        from phi3_assets.core.recipe import settings_of

        return {name: getattr(recipe, name) for name in settings_of(self.name)}

    def load(self) -> Callable[[StepContext], dict[str, Any]]:
        """Import the step's function."""
        return _import(self.function)  # type: ignore[no-any-return]

    def findings(self, metrics: Mapping[str, Any], directory: Path, recipe: "Recipe") -> "list[Finding]":
        """What the blocking rules say of an artefact of this step."""
        return _import(self.rules)(metrics, directory, recipe) if self.rules else []


def _import(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class StepCall:
    """A step, its parameters and the content digests of what it reads: everything its identity is made of.

    Attributes:
        step: Name of the step.
        code_version: The step's.
        params: Recipe fields and their values.
        inputs: Content digest of each input, by name.
        libraries: Version of each library that can change the result.
        settings: Recipe fields that the function is handed and that are not in the identity.
    """

    step: str
    code_version: str
    params: dict[str, Any]
    inputs: dict[str, str]
    libraries: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """SHA-256, 64 hex digits. Where the step runs, and with what settings, is not part of it."""
        return sha256_of({name: value for name, value in self.to_dict().items() if name != "settings"})

    def to_dict(self) -> dict[str, Any]:
        """JSON form; `StepCall(**d)` is its inverse."""
        return {
            "step": self.step,
            "code_version": self.code_version,
            "params": self.params,
            "inputs": self.inputs,
            "libraries": self.libraries,
            "settings": self.settings,
        }


# Distributions of one library that are built for other devices; one of them is installed.
_BUILDS = {"onnxruntime-genai": ("onnxruntime-genai", "onnxruntime-genai-cuda")}


def installed_version(library: str) -> str:
    """Version of a library's distribution, of whichever is installed, with its build tag.

    Raises:
        importlib.metadata.PackageNotFoundError: None is installed.
    """
    *others, last = _BUILDS.get(library, (library,))
    for name in others:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return importlib.metadata.version(last)


def installed_versions(libraries: tuple[str, ...]) -> dict[str, str]:
    """Version of each library without its build tag, and without importing any of them.

    The tag, or the distribution, says for what it was built: torch 2.13.0+cpu and 2.13.0+cu128 are one library on two
    devices. Where a step runs is not in its identity; a manifest records it.

    Raises:
        importlib.metadata.PackageNotFoundError: One is not installed.
    """
    return {name: installed_version(name).partition("+")[0] for name in sorted(libraries)}
