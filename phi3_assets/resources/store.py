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
from typing import ClassVar

import dagster as dg
from pydantic import Field

from phi3_assets.core.home import SHORT, artefact_dir, claim_path, default_home, work_dir
from phi3_assets.core.ledger import Ledger
from phi3_assets.core.locks import Holder, locked
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.core.step import StepCall
from phi3_assets.data.read.remote import is_remote, localise
from phi3_assets.resources.runs import hold_run
from phi3_assets.steps import step_of

PEEKED_BYTES = 8 << 20
"""Largest file that `ArtifactStore.peek` brings without being asked for it by name."""


class ArtifactStore(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]
    """Holds artefacts by identity, and the pointers that ops hand to one another."""

    elsewhere: ClassVar[bool] = False
    """Whether artefacts stand on another machine, so that to fetch one may take gigabytes and minutes."""

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

    def directory(self, kind: str, identity: str) -> Path:
        """Where the artefact of this identity stands in this home, or will; elsewhere: its copy."""
        return artefact_dir(self.home_path, step_of(kind).folder, kind, identity)

    def staging_path(self, call: StepCall) -> Path:
        """A new path, on the disk a publish is cheapest from, for a step to write to."""
        return self.work_path(call) / f"staged-{uuid.uuid4().hex[:8]}"

    @abstractmethod
    def claim(
        self, call: StepCall, waiting: Callable[[str], None] = lambda who: None, run: str = ""
    ) -> contextlib.AbstractContextManager[None]:
        """Hold an identity for writing; whoever else can reach this store waits, then finds the artefact made.

        It falls to the next when its holder dies. What a killed holder left half-written here is removed.

        Args:
            call: What is about to be made.
            waiting: Called with who holds it, once for each who does.
            run: Id of the Dagster run, for those who wait.
        """

    @contextlib.contextmanager
    def _claim_here(self, call: StepCall, waiting: Callable[[str], None], run: str) -> Iterator[None]:
        """The claim among the processes of this machine; the kernel drops it when its holder dies."""
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
            DamagedArtefact: It is there, but files are missing or have another size. Bytes are compared by `verify`,
                by `fetch` with `content`, and by the worker before it reads.
        """

    @abstractmethod
    def fetch(self, ref: ArtefactRef, *, content: bool = False) -> Path:
        """A local directory that holds the artefact; with `content`, every byte is verified first.

        What is brought here from elsewhere is verified byte by byte in any case.

        Raises:
            UserError: There is no such artefact.
            DamagedArtefact: See `find`.
        """

    @abstractmethod
    def peek(self, ref: ArtefactRef, *files: str) -> Path:
        """A local directory that holds the artefact's small files, of up to `PEEKED_BYTES` each, but perhaps no others.

        For rules, reports and what the UI shows, which need no weights.

        Args:
            ref: The artefact.
            files: What it must hold too, however large; POSIX paths of the artefact.

        Raises:
            UserError: There is no such artefact.
            DamagedArtefact: See `find`; or one of these files is not what the manifest says.
        """

    @abstractmethod
    def verify(self, ref: ArtefactRef) -> None:
        """Prove that the artefact is what its manifest says, where it stands.

        On a disk every byte is read. Elsewhere every file's size is compared, and the checksum that the service keeps
        of what it was sent.

        Raises:
            UserError: There is no such artefact.
            DamagedArtefact: Names the first file that differs.
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
    def where_log(self, ref: ArtefactRef) -> str:
        """Path or URI of the log of the step that made it; there may be none."""

    @abstractmethod
    def keep_log(self, call: StepCall, log: Path) -> str:
        """Keep a finished step's log beside its artefact; returns where."""
