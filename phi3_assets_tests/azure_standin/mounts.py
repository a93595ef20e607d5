"""Folders of a job's node and the blobs that they stand for."""

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets_tests.azure_standin.names import BLOB_HOST
from phi3_assets_tests.azure_standin.workspace import Workspace

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

# The service itself writes the address of a job's default output without "paths".
SHORT = re.compile(r"azureml://datastores/(?P<store>[^/]+)/(?:paths/)?(?P<path>.*)")
LONG = re.compile(r"azureml://subscriptions/[^/]+/.*?workspaces/[^/]+/datastores/(?P<store>[^/]+)/paths/(?P<path>.*)")
BLOB = re.compile(rf"https://{re.escape(BLOB_HOST)}/(?P<container>[^/]+)/?(?P<path>.*)")
ASSET = re.compile(r"(?:azureml:|.*/data/)(?P<name>[\w.-]+)(?::|/versions/)(?P<version>[\w.-]+)")


class NotFound(Exception):
    """An address stands for nothing; jobs find that out when they run, not when they are submitted."""


def locate(workspace: Workspace, uri: str) -> tuple["ContainerClient", str]:
    """Container and path that an address stands for: azureml://, azureml:name:version, or https://.

    Raises:
        NotFound: There is no such datastore, asset or form of address.
    """
    if match := SHORT.fullmatch(uri) or LONG.fullmatch(uri):
        if match["store"] not in workspace.containers:
            raise NotFound(f"ScriptExecution.StreamAccess.NotFound: there is no datastore {match['store']}.")
        return workspace.containers[match["store"]], match["path"].strip("/")
    if match := BLOB.fullmatch(uri):
        return workspace.blobs.get_container_client(match["container"]), match["path"].strip("/")
    if match := ASSET.fullmatch(uri):
        asset = workspace.assets.get(("data", match["name"], match["version"]))
        if asset is not None:
            return locate(workspace, asset["properties"]["dataUri"])
    raise NotFound(f"ScriptExecution.StreamAccess.NotFound: {uri} was not found.")


def download(container: "ContainerClient", path: str, folder: Path) -> list[Path]:
    """Write every blob below `path` into `folder`, which is made; what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    prefix = f"{path}/" if path else ""
    written = []
    for blob in container.list_blobs(name_starts_with=prefix):
        file = folder / blob.name.removeprefix(prefix)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as output:
            container.download_blob(blob.name).readinto(output)
        written.append(file)
    return written


def make_read_only(folder: Path) -> None:
    """As an input is mounted."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def remove(folder: Path) -> None:
    """Delete a folder with everything in it, read-only inputs too."""
    if folder.exists():
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)
        shutil.rmtree(folder)


class Mount:
    """A folder that blobs follow: what is written, changed or deleted in it is so in the container, a little later."""

    def __init__(self, container: "ContainerClient", path: str, folder: Path) -> None:
        """The folder is made; nothing is copied yet."""
        self._container, self._prefix, self._folder = container, f"{path}/", folder
        self._known: dict[Path, tuple[int, int, int]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def lay_out(self) -> None:
        """Write what is in the container into the folder: the files of an attempt before."""
        for file in download(self._container, self._prefix.rstrip("/"), self._folder):
            self._known[file] = _stamp(file)

    def synchronise(self) -> None:
        """Make the container equal to the folder; a file that is written to just now comes again the next time."""
        present = {}
        for file in sorted(self._folder.rglob("*")):
            try:
                if file.is_file():
                    present[file] = _stamp(file)
                    if self._known.get(file) != present[file]:
                        self._container.upload_blob(self._blob(file), file.read_bytes(), overwrite=True)
            except FileNotFoundError:  # renamed or deleted since it was listed
                present.pop(file, None)
        for file in self._known.keys() - present.keys():
            self._container.delete_blob(self._blob(file))
        self._known = present

    def names(self) -> list[str]:
        """Paths of what is in the container."""
        return sorted(file.relative_to(self._folder).as_posix() for file in self._known)

    def _blob(self, file: Path) -> str:
        return self._prefix + file.relative_to(self._folder).as_posix()


def _stamp(file: Path) -> tuple[int, int, int]:
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino
