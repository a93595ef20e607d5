"""Where artefacts stand: a content-addressed store.

An artefact is found by identity and never changes. It appears whole or not at all. `ArtifactStore` is what the rest of
the project knows; `phi3_assets_tests/resources/store_contract.py` is what every implementation must pass.
"""

import contextlib
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
from pydantic import Field

from phi3_assets.core.home import SHORT, claim_path, default_home, work_dir
from phi3_assets.core.ledger import Ledger
from phi3_assets.core.locks import Holder, locked
from phi3_assets.core.manifest import (
    ArtefactRef,
    Manifest,
)
from phi3_assets.core.step import StepCall
from phi3_assets.data.read.remote import is_remote, localise
from phi3_assets.resources.runs import hold_run


class ArtifactStore(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]
    """Holds artefacts by identity, and the pointers that ops hand to one another."""

    home: str = Field(default="", description="PHI3_HOME of this machine; empty: the environment's, else ./home.")

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Say that this process executes the run: every op needs a store, so it is there before the first."""
        if context.run is not None:
            hold_run(self.home_path, context.run.run_id, context.instance)

    @property
    def home_path(self) -> Path:
        """This machine's home: datasets to read, and room to work in."""
        return Path(self.home).expanduser().absolute() if self.home else default_home()

    @property
    @abstractmethod
    def ledger(self) -> Ledger:
        """What changes beside the artefacts."""

    @property
    def cache_path(self) -> Path:
        """Where downloads are kept between runs."""
        return self.home_path / "model-cache" / "downloads"

    def work_path(self, call: StepCall) -> Path:
        """A local directory that belongs to this identity alone and outlives a kill."""
        return work_dir(self.home_path, call.step, call.identity)

    def datasets_path(self, dataset_path: str, log: Callable[[str], None] = print) -> Path:
        """The folder of the user's files that a recipe names; remote data is brought here first.

        Raises:
            UserError: Remote data cannot be reached.
        """
        if is_remote(dataset_path):
            return localise(dataset_path, self.cache_path, log)
        return Path(dataset_path).expanduser().absolute() if dataset_path else self.home_path / "datasets"

    def staging_path(self, call: StepCall) -> Path:
        """A new path, on the disk a publish is cheapest from, for a step to write to."""
        return self.work_path(call) / f"staged-{uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def claim(self, call: StepCall, waiting: Callable[[str], None] = lambda who: None, run: str = "") -> Iterator[None]:
        """Hold an identity for writing on this machine; others wait, then find the artefact made.

        The kernel drops the lock when its holder dies. What a killed holder left half-written is removed here.

        Args:
            call: What is about to be made.
            waiting: Called with who holds it, once for each who does.
            run: Id of the Dagster run, for those who wait.
        """
        work = self.work_path(call)
        work.mkdir(parents=True, exist_ok=True)
        with locked(claim_path(work), Holder(run, f"{call.step} {call.identity[:SHORT]}"), waiting):
            for leftover in work.glob("staged-*"):
                shutil.rmtree(leftover)
            yield

    @abstractmethod
    def find(self, kind: str, identity: str) -> Manifest | None:
        """The artefact's manifest, or None when there is none.

        Raises:
            DamagedArtefact: It is there, but files are missing or have another size. Bytes are compared by `fetch`
                with `content`, and by the worker before it reads.
        """

    @abstractmethod
    def fetch(self, ref: ArtefactRef, *, content: bool = False) -> Path:
        """A local directory that holds the artefact; with `content`, every byte is verified first.

        Raises:
            UserError: There is no such artefact.
            DamagedArtefact: See `find`.
        """

    @abstractmethod
    def publish(self, call: StepCall, staged: Path) -> Manifest:
        """Make a sealed directory the artefact of its identity, at once and whole; `staged` is gone afterwards.

        If another writer was faster its artefact stays, and is returned.
        """

    @abstractmethod
    def where(self, ref: ArtefactRef) -> str:
        """Path or URI that a person can open."""

    @abstractmethod
    def keep_log(self, call: StepCall, log: Path) -> str:
        """Keep a finished step's log beside its artefact; returns where."""
