"""The store in a container of Azure Blob Storage; the home is its local side, and can be deleted.

Every attempt at an identity has a folder of its own. What makes one of them the artefact is a single blob,
`manifest.json`, that is written only where there is none: of two writers the service says who was first, and nobody
sees half an artefact. Paths are those of `phi3_assets.azure.layout`.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import dagster as dg
from pydantic import PrivateAttr

from phi3_assets.azure import layout
from phi3_assets.azure.blobs import url_of
from phi3_assets.azure.clients import clients_of
from phi3_assets.azure.errors import patiently, readable, retried
from phi3_assets.azure.lease import leased
from phi3_assets.azure.settings import AzureSettings, load_settings
from phi3_assets.azure.transfer import upload_directory
from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import hash_file
from phi3_assets.core.home import SHORT, home_id
from phi3_assets.core.ledger import Ledger
from phi3_assets.core.locks import Holder
from phi3_assets.core.manifest import MANIFEST, ArtefactRef, Manifest, read_manifest, verify
from phi3_assets.core.step import StepCall
from phi3_assets.resources.blob_copies import fetch_copy, peek_copy, take_the_place
from phi3_assets.resources.blob_ledger import BlobLedger
from phi3_assets.resources.blob_listing import compare, prove
from phi3_assets.resources.blob_publication import Published, publish_attempt, read_published, read_text
from phi3_assets.resources.blob_user_files import upload_user_files
from phi3_assets.resources.execution import UserFiles
from phi3_assets.resources.store import ArtifactStore

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient


class BlobArtifactStore(ArtifactStore):
    """Artefacts in a datastore of an Azure Machine Learning workspace; see `phi3_assets.azure.settings`."""

    elsewhere: ClassVar[bool] = True
    lease_s: ClassVar[int] = 60
    """How long a claim outlives its holder, 15 to 60 seconds."""

    _known: dict[tuple[str, str], Published] = PrivateAttr(default_factory=dict)

    @cached_property
    def settings(self) -> AzureSettings:
        """The workspace, as environment and home say.

        Raises:
            UserError: They name none.
        """
        return load_settings({**os.environ, "PHI3_HOME": str(self.home_path)}).require()

    @cached_property
    def container(self) -> "ContainerClient":
        """The datastore's container.

        Raises:
            UserError: There is no such datastore, or no access.
        """
        return clients_of(self.settings).container

    @property
    def ledger(self) -> Ledger:
        """See `ArtifactStore.ledger`."""
        return BlobLedger(lambda: self.container, self._at("ledger"))

    @contextlib.contextmanager
    def claim(self, call: StepCall, waiting: Callable[[str], None] = lambda who: None, run: str = "") -> Iterator[None]:
        """See `ArtifactStore.claim`."""
        blob = self._blob(layout.claim(call.step, call.identity))
        who, holder = str(home_id(self.home_path)), Holder(run, f"{call.step} {call.identity[:SHORT]}")
        with self._claim_here(call, waiting, run), leased(blob, who, holder, waiting, self.lease_s):
            yield

    def find(self, kind: str, identity: str) -> Manifest | None:
        """See `ArtifactStore.find`."""
        with self._reached():
            try:
                return self._whole(self._published(kind, identity))
            except DamagedArtefact:
                if self._known.pop((kind, identity), None) is None:
                    raise
            # It may have been deleted, or made anew, since this process saw it.
            return self._whole(self._published(kind, identity))

    def fetch(self, ref: ArtefactRef, *, content: bool = False) -> Path:
        """See `ArtifactStore.fetch`."""
        directory = self.directory(ref.kind, ref.identity)
        with self._reached():
            fetch_copy(self.container, self._standing(ref), directory, self._cache, content=content)
        return directory

    def peek(self, ref: ArtefactRef, *files: str) -> Path:
        """See `ArtifactStore.peek`."""
        directory = self.directory(ref.kind, ref.identity)
        with self._reached():
            return peek_copy(self.container, self._standing(ref), directory, self._cache, files)

    def verify(self, ref: ArtefactRef) -> None:
        """See `ArtifactStore.verify`."""
        with self._reached():
            published = self._standing(ref)
            kept = self._at(layout.listing(ref.kind, ref.identity, published.attempt))
            prove(self.container, kept, published.folder, published.manifest)

    def publish(self, call: StepCall, staged: Path) -> Manifest:
        """See `ArtifactStore.publish`."""
        manifest = read_manifest(staged)
        verify(staged, manifest, content=False)
        made = self.find(call.step, call.identity)
        if made is None:
            # Of this home and this content, so that an upload that was cut off goes on, and nobody else writes there.
            attempt = f"{home_id(self.home_path).hex[:8]}-{manifest.digest[:SHORT]}"
            # Hours of training may be in it: a service that is away is waited for.
            wait_s = self.settings.grace_minutes * 60
            made = patiently(lambda: self._upload(manifest, staged, attempt), wait_s, dg.get_dagster_logger().info)
        if made == manifest:
            take_the_place(staged, self.directory(call.step, call.identity))
        else:
            shutil.rmtree(staged)
        return made

    def _upload(self, manifest: Manifest, staged: Path, attempt: str) -> Manifest:
        folder = self._at(layout.attempt(manifest.call.step, manifest.call.identity, attempt))
        with self._reached():
            upload_directory(self.container, folder, staged, manifest.files)
            upload_directory(self.container, folder, staged, {MANIFEST: hash_file(staged / MANIFEST)})
            return publish_attempt(self.container, self.settings.prefix, manifest, attempt)

    def adopt_attempt(self, call: StepCall, attempt: str, verified: Callable[[], None] = lambda: None) -> Manifest:
        """Make what a job has sealed and uploaded the artefact; if another was faster its artefact is returned.

        Args:
            call: What it was to be.
            attempt: Name of the folder that it was uploaded to; see `layout.attempt`.
            verified: Called when it is known to be whole, or needless, and is not the artefact yet.

        Raises:
            DamagedArtefact: Its manifest is missing, is another's, or its files are not what it says.
        """
        blob = self._blob(f"{layout.attempt(call.step, call.identity, attempt)}/{MANIFEST}")
        with self._reached():
            found = read_text(blob)
            if found is None:
                if published := self._published(call.step, call.identity):
                    verified()
                    return published.manifest
                raise DamagedArtefact(f"{url_of(blob)} is missing: the job uploaded no finished artefact.")
            manifest = Manifest.from_json(found[0], url_of(blob))
            if manifest.call.identity != call.identity:
                raise DamagedArtefact(f"{url_of(blob)} is of identity {manifest.call.identity}, not {call.identity}.")
            return publish_attempt(self.container, self.settings.prefix, manifest, attempt, verified)

    def has_attempt(self, call: StepCall, attempt: str) -> bool:
        """Whether an attempt at an identity left something sealed."""
        with self._reached():
            return bool(retried(self._blob(f"{layout.attempt(call.step, call.identity, attempt)}/{MANIFEST}").exists))

    def put_user_files(self, name: str, files: UserFiles) -> str:
        """See `upload_user_files`."""
        with self._reached():
            return upload_user_files(self.container, self.settings.prefix, name, files)

    def attempt_path(self, ref: ArtefactRef) -> str:
        """Path below the prefix of the folder that holds an artefact's files, to be mounted by a job.

        Raises:
            UserError: There is no such artefact.
        """
        with self._reached():
            return layout.attempt(ref.kind, ref.identity, self._standing(ref).attempt)

    def where(self, ref: ArtefactRef) -> str:
        """See `ArtifactStore.where`."""
        with self._reached():
            published = self._published(ref.kind, ref.identity)
        path = published.folder if published else self._at(layout.artefact(ref.kind, ref.identity))
        return f"{url_of(self.container)}/{path}"

    def where_log(self, ref: ArtefactRef) -> str:
        """See `ArtifactStore.where_log`."""
        return url_of(self._blob(layout.log(ref.kind, ref.identity)))

    def keep_log(self, call: StepCall, log: Path) -> str:
        """See `ArtifactStore.keep_log`."""
        blob = self._blob(layout.log(call.step, call.identity))
        with self._reached():
            retried(lambda: blob.upload_blob(log.read_bytes(), overwrite=True))
        log.unlink()
        return url_of(blob)

    @property
    def _cache(self) -> Path:
        return self.home_path / "model-cache"

    def _at(self, path: str) -> str:
        return f"{self.settings.prefix}/{path}"

    def _blob(self, path: str) -> "BlobClient":
        return self.container.get_blob_client(self._at(path))

    def _reached(self) -> contextlib.AbstractContextManager[None]:
        return readable(f"Store {url_of(self.container)}/{self.settings.prefix}")

    def _published(self, kind: str, identity: str) -> Published | None:
        """What never changes is read once; a run asks a hundred times."""
        found = self._known.get((kind, identity))
        if found is None:
            found = read_published(self.container, self.settings.prefix, kind, identity)
            if found is not None:
                self._known[kind, identity] = found
        return found

    def _whole(self, published: Published | None) -> Manifest | None:
        if published is None:
            return None
        compare(self.container, published.folder, published.manifest)
        return published.manifest

    def _standing(self, ref: ArtefactRef) -> Published:
        published = self._published(ref.kind, ref.identity)
        if published is None:
            raise UserError(
                f"{ref.kind} {ref.identity[:SHORT]} is gone from {url_of(self.container)}/"
                f"{self._at(layout.artefact(ref.kind, ref.identity))}. Materialise {ref.kind} again."
            )
        return published
