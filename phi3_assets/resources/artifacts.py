"""Where artefacts stand: a content-addressed store, here on a local disk.

An artefact is found by identity and never changes. It appears whole or not at all. `ArtifactStore` is what the rest of
the project knows; `phi3_assets_tests/resources/store_contract.py` is what every implementation must pass.
"""

import contextlib
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import filelock
from pydantic import Field

from phi3_assets.data.remote import is_remote, localise
from phi3_assets.errors import DamagedArtefact, UserError
from phi3_assets.home import SHORT, artefact_dir, default_home, work_dir
from phi3_assets.manifest import (
    MANIFEST,
    ArtefactRef,
    Manifest,
    fsync_path,
    read_manifest,
    verify,
    write_atomically,
)
from phi3_assets.step import StepCall, sha256_of


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
        lock = filelock.FileLock(work.with_name(f"{work.name}.lock"))
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


class LocalArtifactStore(ArtifactStore):
    """Artefacts on a local disk, or on a mounted one that renames atomically."""

    def find(self, kind: str, identity: str) -> Manifest | None:
        """See `ArtifactStore.find`."""
        directory = artefact_dir(self.home_path, kind, identity)
        try:
            manifest = read_manifest(directory)
        except FileNotFoundError:
            return None
        if manifest.call.identity != identity:
            raise DamagedArtefact(f"{directory} holds identity {manifest.call.identity}, not {identity}.")
        verify(directory, manifest, content=False)
        return manifest

    def fetch(self, ref: ArtefactRef, *, content: bool = False) -> Path:
        """See `ArtifactStore.fetch`."""
        directory = artefact_dir(self.home_path, ref.kind, ref.identity)
        manifest = self.find(ref.kind, ref.identity)
        if manifest is None:
            raise UserError(
                f"{ref.kind} {ref.identity[:SHORT]} is gone from {directory}. Materialise {ref.kind} again."
            )
        if content:
            verify(directory, manifest, content=True)
        return directory

    def publish(self, call: StepCall, staged: Path) -> Manifest:
        """See `ArtifactStore.publish`."""
        verify(staged, read_manifest(staged), content=False)
        directory = artefact_dir(self.home_path, call.step, call.identity)
        directory.parent.mkdir(parents=True, exist_ok=True)
        if directory.exists() and not (directory / MANIFEST).exists():
            # No artefact, so nobody's; moved and not deleted, in case a person put something there.
            directory.rename(directory.with_name(f"{directory.name}.no-manifest-{uuid.uuid4().hex[:8]}"))
        try:
            staged.rename(directory)  # onto a directory that is not empty it fails
        except OSError:
            made = self.find(call.step, call.identity)
            if made is None:
                raise
            shutil.rmtree(staged)
            return made
        fsync_path(directory.parent)
        made = self.find(call.step, call.identity)
        assert made is not None
        return made

    def where(self, ref: ArtefactRef) -> str:
        """See `ArtifactStore.where`."""
        return str(artefact_dir(self.home_path, ref.kind, ref.identity))

    def keep_log(self, call: StepCall, log: Path) -> str:
        """See `ArtifactStore.keep_log`."""
        directory = artefact_dir(self.home_path, call.step, call.identity)
        kept = directory.with_name(f"{directory.name}.log")
        os.replace(log, kept)
        return str(kept)

    def save_pointer(self, key: str, value: Any) -> None:
        """See `ArtifactStore.save_pointer`."""
        path = self._pointer_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(value))

    def load_pointer(self, key: str) -> Any | None:
        """See `ArtifactStore.load_pointer`."""
        try:
            return json.loads(self._pointer_path(key).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _pointer_path(self, key: str) -> Path:
        return self.home_path / "gen-model" / ".pointers" / f"{key}.json"


class PointerIOManager(dg.ConfigurableIOManager):
    """Hands small JSON records from op to op through the store; never a model.

    A pointer is kept under the run that wrote it, so that two runs side by side do not see each other's; an asset
    materialised alone reads what its upstream pointed to last.
    """

    store: dg.ResourceDependency[ArtifactStore]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep an op's output under its run, and an asset's also as the latest."""
        self.store.save_pointer("/".join(["runs", *context.get_identifier()]), obj)
        if context.has_asset_key:
            self.store.save_pointer(f"latest/{context.asset_key.to_user_string()}", obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """Read what this run's upstream wrote, else the asset's latest.

        Raises:
            UserError: The upstream asset was never materialised.
        """
        upstream = context.upstream_output
        assert upstream is not None
        value = self.store.load_pointer("/".join(["runs", *upstream.get_identifier()]))
        if value is None and context.has_asset_key:
            value = self.store.load_pointer(f"latest/{context.asset_key.to_user_string()}")
        if value is None:
            name = context.asset_key.to_user_string() if context.has_asset_key else "/".join(upstream.get_identifier())
            raise UserError(f"{name} has not been materialised in this home. Materialise it first, or select it too.")
        return value
