"""The store on a local disk."""

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import fsync_path
from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import Ledger, LedgerConflict, product_key
from phi3_assets.core.manifest import MANIFEST, ArtefactRef, Manifest, read_manifest, verify
from phi3_assets.core.recipe_data import DEFAULT_PRODUCT
from phi3_assets.core.step import StepCall
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.store import ArtifactStore


class LocalArtifactStore(ArtifactStore):
    """Artefacts on a local disk, or on a mounted one that renames atomically."""

    @property
    def ledger(self) -> Ledger:
        """See `ArtifactStore.ledger`."""
        ledger = LocalLedger(self.home_path / "ledger")
        _take_over_champion(self.home_path, ledger)
        return ledger

    def claim(
        self, call: StepCall, waiting: Callable[[str], None] = lambda who: None, run: str = ""
    ) -> AbstractContextManager[None]:
        """See `ArtifactStore.claim`."""
        return self._claim_here(call, waiting, run)

    def find(self, kind: str, identity: str) -> Manifest | None:
        """See `ArtifactStore.find`."""
        directory = self.directory(kind, identity)
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
        directory = self.directory(ref.kind, ref.identity)
        manifest = self.find(ref.kind, ref.identity)
        if manifest is None:
            raise UserError(
                f"{ref.kind} {ref.identity[:SHORT]} is gone from {directory}. Materialise {ref.kind} again."
            )
        if content:
            verify(directory, manifest, content=True)
        return directory

    def peek(self, ref: ArtefactRef, *files: str) -> Path:
        """See `ArtifactStore.peek`."""
        return self.fetch(ref)

    def verify(self, ref: ArtefactRef) -> None:
        """See `ArtifactStore.verify`."""
        self.fetch(ref, content=True)

    def publish(self, call: StepCall, staged: Path) -> Manifest:
        """See `ArtifactStore.publish`."""
        verify(staged, read_manifest(staged), content=False)
        directory = self.directory(call.step, call.identity)
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
        return str(self.directory(ref.kind, ref.identity))

    def where_log(self, ref: ArtefactRef) -> str:
        """See `ArtifactStore.where_log`."""
        return str(self._log(ref.kind, ref.identity))

    def keep_log(self, call: StepCall, log: Path) -> str:
        """See `ArtifactStore.keep_log`."""
        kept = self._log(call.step, call.identity)
        os.replace(log, kept)
        return str(kept)

    def _log(self, kind: str, identity: str) -> Path:
        directory = self.directory(kind, identity)
        return directory.with_name(f"{directory.name}.log")


def _take_over_champion(home: Path, ledger: Ledger) -> None:
    """Homes had one champion, in gen-model/champion.json, before there were products; it is the default product's."""
    old = home / "gen-model" / "champion.json"
    if not old.exists():
        return
    with suppress(LedgerConflict):  # another process took it over, or that product has one already
        ledger.write(product_key(DEFAULT_PRODUCT, "champion.json"), old.read_bytes(), None)
    with suppress(FileNotFoundError):
        old.rename(old.with_name("champion-before-products.json"))
