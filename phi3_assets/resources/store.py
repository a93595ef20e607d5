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
from typing import Any

import dagster as dg
import filelock
from pydantic import Field

from phi3_assets.core.home import SHORT, claim_path, default_home, work_dir
from phi3_assets.core.manifest import (
    ArtefactRef,
    Manifest,
)
from phi3_assets.core.step import StepCall, sha256_of
from phi3_assets.data.read.remote import is_remote, localise


class ArtifactStore(dg.ConfigurableResource, ABC):  # type: ignore[type-arg]
    """Holds artefacts by identity, and the pointers that ops hand to one another."""

    home: str = Field(default="", description="PHI3_HOME of this machine; empty: the environment's, else ./home.")

    @property
    def home_path(self) -> Path:
        """This machine's home: datasets to read, and room to work in."""
        return Path(self.home).expanduser().absolute() if self.home else default_home()

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

    def test_sets_path(self, dataset_path: str) -> Path:
        """The folder of frozen test sets that belongs to a dataset folder."""
        name = f"other-{sha256_of(dataset_path)[:SHORT]}" if dataset_path else "datasets"
        return self.home_path / "fine-tuning" / "test_sets" / name

    def staging_path(self, call: StepCall) -> Path:
        """A new path, on the disk a publish is cheapest from, for a step to write to."""
        return self.work_path(call) / f"staged-{uuid.uuid4().hex[:8]}"

    @contextlib.contextmanager
    def claim(self, call: StepCall, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold an identity for writing on this machine; others wait, then find the artefact made.

        The kernel drops the lock when its holder dies. What a killed holder left half-written is removed here.

        Args:
            call: What is about to be made.
            waiting: Called once if another process holds it.
        """
        work = self.work_path(call)
        work.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(claim_path(work))
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            waiting()
            lock.acquire(poll_interval=0.2)
        try:
            for leftover in work.glob("staged-*"):
                shutil.rmtree(leftover)
            yield
        finally:
            lock.release()

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

    @abstractmethod
    def save_pointer(self, key: str, value: Any) -> None:
        """Keep a small JSON value under a slash-separated key."""

    @abstractmethod
    def load_pointer(self, key: str) -> Any | None:
        """The value kept under `key`, or None."""
