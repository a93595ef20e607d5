"""Data that is not a local folder: a Hugging Face dataset at a pinned commit, or a remote folder (Azure Blob, S3, ...).

Steps see local folders only. `localise` makes one and keeps it up to date: what is unchanged, there and here, is not
fetched again, and what is gone at the source goes here too.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import filelock

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.files import write_atomically
from phi3_assets.core.sealing import checksum
from phi3_assets.core.step import sha256_of
from phi3_assets.data.read import datastore

_HUB = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_HIDDEN = (".", "_")
_STATE = ".mirror.json"  # hidden, so no reader takes it for data
_MARKS = (
    "etag",
    "ETag",
    "content_md5",
    "md5",
    "md5Hash",
    "sha256",
    "last_modified",
    "LastModified",
    "mtime",
    "created",
)
_DRIVERS = {"abfs": "adlfs", "abfss": "adlfs", "az": "adlfs", "s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


def is_remote(dataset_path: str) -> bool:
    """True if `localise` is needed: 'hf:...', or a URL such as 'abfs://container/folder' or 'azureml://...'."""
    return dataset_path.startswith("hf:") or "://" in dataset_path


def is_in_datastore(dataset_path: str) -> bool:
    """True for a folder of a workspace's datastore, 'azureml://datastores/<name>/paths/<path>' or its long form."""
    return dataset_path.startswith("azureml://")


def localise(dataset_path: str, cache: Path, log: Callable[[str], None] = print) -> Path:
    """Bring remote data to a local folder.

    Args:
        dataset_path: 'hf:owner/name@commit' with the 40 hex digits of a commit, a folder of a datastore
            ('azureml://datastores/<name>/paths/<folder>'), or a URL that fsspec understands. Credentials come from the
            environment, as the driver reads them; never from the URL.
        cache: Where the folder is kept between runs.
        log: Shows one line to the user.

    Returns:
        A folder for the input `datasets` of raw_dataset.

    Raises:
        UserError: The address is malformed, the driver is not installed, or the data cannot be reached.
    """
    target = cache / "datasets" / sha256_of(dataset_path)[:16]
    if dataset_path.startswith("hf:"):
        match = _HUB.fullmatch(dataset_path)
        if match is None:
            raise UserError(
                f"dataset_path {dataset_path!r} must be 'hf:owner/name@commit' with the 40 hex digits of a commit: a "
                "branch can move under you. The commit stands under 'Files and versions' on the dataset's page."
            )
        return fetch_hub_dataset(match["name"], match["commit"], target, log)
    return mirror(dataset_path, target, log)


def list_remote(url: str) -> dict[str, str]:
    """Name below the folder and a mark of the content (etag, checksum, or size and time) of each remote file.

    Raises:
        UserError: No such folder, no driver, or no access.
    """
    _, files = _find(url)
    return {name: _mark(info) for name, info in files.items()}


def mirror(url: str, target: Path, log: Callable[[str], None] = print) -> Path:
    """Make `target` hold the files of a remote folder; only new and changed ones are fetched.

    Raises:
        UserError: No such folder, no driver, or no access.
    """
    write, files = _find(url)
    with _held(target):
        have = _state(target)
        fetched: list[str] = []
        for name, info in sorted(files.items()):
            path = target / name
            known = have.get(name)
            if known and known["mark"] == _mark(info):
                if _is_whole(path, known):
                    continue
                log(f"{name} in the cache is damaged and is fetched again")
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f".{path.name}.{uuid4().hex}")
            try:
                write(info["name"], str(half))
                have[name] = {"mark": _mark(info), "checksum": checksum(half)}
                os.replace(half, path)
            except (UserError, TransientError):
                raise
            except Exception as error:
                raise _unreachable(url, error) from error
            finally:
                half.unlink(missing_ok=True)
            fetched.append(name)
        for path in sorted(target.rglob("*"), reverse=True):
            if path.is_file() and path.name != _STATE and path.relative_to(target).as_posix() not in files:
                path.unlink()
            elif path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        write_atomically(target / _STATE, json.dumps({name: have[name] for name in sorted(files)}))
    log(f"{len(files)} remote files, {len(fetched)} of them new or changed")
    return target


def fetch_hub_dataset(name: str, commit: str, target: Path, log: Callable[[str], None] = print) -> Path:
    """Write each split of a Hub dataset as parquet to `target`, unless it is there already.

    Raises:
        UserError: The dataset cannot be had.
    """
    import datasets

    with _held(target):
        have = _state(target)
        if have and all(_is_whole(target / file, known) for file, known in have.items()):
            return target
        if have:
            log(f"{name} in the cache is damaged and is fetched again")
        try:
            # In a cache of its own: that of `datasets` is not verified.
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                splits = datasets.load_dataset(name, revision=commit, cache_dir=scratch)
                for split, rows in splits.items():
                    rows.to_parquet(target / f".{split}.parquet")
                    os.replace(target / f".{split}.parquet", target / f"{split}.parquet")
        except Exception as error:
            raise UserError(
                f"Dataset {name} at {commit} cannot be had from the Hub ({type(error).__name__}: {error}). Check the "
                "name and the commit, the network, and HF_TOKEN if the dataset is gated; or download it and give its "
                "folder."
            ) from error
        made = {f"{split}.parquet": {"checksum": checksum(target / f"{split}.parquet")} for split in splits}
        write_atomically(target / _STATE, json.dumps(made))
    log(f"{name}: {', '.join(f'{rows.num_rows} rows {split}' for split, rows in splits.items())}")
    return target


@contextmanager
def _held(target: Path) -> Iterator[None]:
    """Make the folder, and keep other runs from it meanwhile."""
    target.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(target.with_name(f".{target.name}.lock")):
        yield


def _state(target: Path) -> dict[str, dict[str, Any]]:
    """What was said and measured of each file when it was fetched; nothing when that cannot be read."""
    try:
        state = json.loads((target / _STATE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    if not isinstance(state, dict):
        return {}
    return {file: known for file, known in state.items() if isinstance(known, dict) and "checksum" in known}


def _is_whole(path: Path, known: dict[str, Any]) -> bool:
    return path.is_file() and list(checksum(path)) == known["checksum"]


def _find(url: str) -> tuple[Callable[[str, str], None], dict[str, dict[str, Any]]]:
    """What writes a file of the folder to a path, and its files by name below the folder; hidden ones are left out.

    So is what stands for a folder: a name that is empty or ends with a slash.
    """
    write, files = datastore.find_files(url) if is_in_datastore(url) else _find_by_fsspec(url)
    files = {name: info for name, info in files.items() if name and not name.endswith("/")}
    files = {name: info for name, info in files.items() if not any(part[:1] in _HIDDEN for part in name.split("/"))}
    unnamed = next((name for name in files if "" in name.split("/")), None)
    if unnamed is not None:
        raise UserError(f"Remote dataset folder {_bare(url)}: {unnamed!r} holds a folder without a name; rename it.")
    if not files:
        raise UserError(f"Remote dataset folder {_bare(url)} does not exist or holds no file.")
    return write, files


def _find_by_fsspec(url: str) -> tuple[Callable[[str, str], None], dict[str, dict[str, Any]]]:
    import fsspec  # type: ignore[import-untyped]

    try:
        filesystem, root = fsspec.core.url_to_fs(url)
        found = filesystem.find(root, detail=True)
    except Exception as error:
        raise _unreachable(url, error) from error
    prefix = root.rstrip("/") + "/"
    files = {path.removeprefix(prefix): info for path, info in found.items() if path.startswith(prefix)}
    return filesystem.get_file, files


def _mark(info: dict[str, Any]) -> str:
    return " ".join([str(info["size"]), *(f"{key}={info[key]}" for key in _MARKS if info.get(key) is not None)])


def _unreachable(url: str, error: Exception) -> UserError:
    scheme = url.partition("://")[0]
    if isinstance(error, ImportError):
        driver = _DRIVERS.get(scheme, "its fsspec driver")
        return UserError(
            f"Remote dataset folder {_bare(url)} needs {driver}, which is not installed: pip install {driver}"
        )
    return UserError(
        f"Remote dataset folder {_bare(url)} cannot be read ({type(error).__name__}). Check the address and the "
        "credentials in the environment."
    )


def _bare(url: str) -> str:
    """The address without what may be a secret: user, password, query."""
    return re.sub(r"//[^/@]*@", "//", url).partition("?")[0]
