"""Data that is not a local folder: a Hugging Face dataset at a pinned commit, or a remote folder (Azure Blob, S3, ...).

Steps see local folders only. `localise` makes one for each version of the source, which never changes once it is whole:
a run goes on with what it began with, whatever is fetched meanwhile. What is unchanged, there and here, is not fetched
again. `list_remote` only looks, which is all that a sensor has the time for.
"""

import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import filelock

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.files import copy_file, data_format, write_atomically
from phi3_assets.core.sealing import checksum
from phi3_assets.core.step import sha256_of

_HUB = re.compile(r"hf:(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_STATE = ".mirror.json"  # hidden, so no reader takes it for data; written last
_KEEP_S = 7 * 24 * 3600
"""A version that no run has asked for this long, in seconds, is removed; no run takes as long."""
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
        match = _hub(dataset_path)
        return fetch_hub_dataset(match["name"], match["commit"], target, log)
    return mirror(dataset_path, target, log)


def list_remote(dataset_path: str) -> dict[str, str]:
    """A mark of the content (etag, checksum, or size and time) of each remote data file, by its name below the folder.

    A dataset of the Hub has one: its commit.

    Raises:
        UserError: No such folder, no driver, or no access.
        TransientError: Azure cannot be reached.
    """
    if dataset_path.startswith("hf:"):
        return {dataset_path: _hub(dataset_path)["commit"]}
    _, files = _find(dataset_path)
    return {name: _mark(info) for name, info in files.items()}


def mirror(url: str, folder: Path, log: Callable[[str], None] = print) -> Path:
    """Make a folder of the version that a remote folder has now; only new and changed files are fetched.

    Args:
        url: The remote folder.
        folder: Where its versions are kept.
        log: Shows one line to the user.

    Returns:
        The version's folder.

    Raises:
        UserError: No such folder, no driver, or no access; or names that no folder can hold beside each other.
        TransientError: Azure cannot be reached, or a file was changed while it was read.
    """
    write, files = _find(url)
    marks = {name: _mark(info) for name, info in files.items()}
    for name in files:
        if any(parent.as_posix() in files for parent in PurePosixPath(name).parents):
            raise UserError(
                f"Remote dataset folder {_bare(url)}: {name!r} stands below what is a file itself. Rename one."
            )
    with _held(folder):
        target = folder / sha256_of(marks)[:16]
        target.mkdir(exist_ok=True)
        os.utime(target)
        earlier = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: -path.stat().st_mtime)
        known = [(version, _state(version)) for version in (target, *earlier)]
        have: dict[str, dict[str, Any]] = {}
        fetched = 0
        for name, info in sorted(files.items()):
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            found = _copy_known(name, marks[name], path, known, log)
            if found is None:
                found = _fetch(write, info["name"], path, url)
                fetched += 1
            have[name] = {"mark": marks[name], "checksum": found}
        write_atomically(target / _STATE, json.dumps(have))
        _forget_old_versions(folder, target)
    log(f"{len(files)} remote files, {fetched} of them new or changed")
    return target


def _copy_known(
    name: str, mark: str, path: Path, known: list[tuple[Path, dict[str, dict[str, Any]]]], log: Callable[[str], None]
) -> list[Any] | None:
    """Take a file from a version that has it whole; its checksum, or None."""
    for version, state in known:
        entry = state.get(name)
        if entry is None or entry.get("mark") != mark:
            continue
        if _is_whole(version / name, entry):
            if version / name != path:
                half = path.with_name(f".{path.name}.{uuid4().hex}")
                copy_file(version / name, half)
                os.replace(half, path)
            return list(entry["checksum"])
        log(f"{name} in the cache is damaged and is fetched again")
        return None
    return None


def _fetch(write: Callable[[str, str], None], name: str, path: Path, url: str) -> list[Any]:
    half = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        write(name, str(half))
        found = list(checksum(half))
        os.replace(half, path)
    except (UserError, TransientError):
        raise
    except Exception as error:
        raise _unreachable(url, error) from error
    finally:
        half.unlink(missing_ok=True)
    return found


def _forget_old_versions(folder: Path, present: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            path.unlink()  # from before each version had a folder of its own
        elif path != present and path.stat().st_mtime < time.time() - _KEEP_S:
            shutil.rmtree(path)


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


def _hub(dataset_path: str) -> re.Match[str]:
    match = _HUB.fullmatch(dataset_path)
    if match is None:
        raise UserError(
            f"dataset_path {dataset_path!r} must be 'hf:owner/name@commit' with the 40 hex digits of a commit: a "
            "branch can move under you. The commit stands under 'Files and versions' on the dataset's page."
        )
    return match


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
    """What writes a file of the folder to a path, and its data files by name below the folder.

    What stands for a folder, a name that is empty or ends with a slash, is none.
    """
    if is_in_datastore(url):
        from phi3_assets.data.read import datastore

        write, files = datastore.find_files(url)
    else:
        write, files = _find_by_fsspec(url)
    files = {name: info for name, info in files.items() if data_format(name)}
    unnamed = next((name for name in files if "" in name.split("/")), None)
    if unnamed is not None:
        raise UserError(f"Remote dataset folder {_bare(url)}: {unnamed!r} holds a folder without a name; rename it.")
    if not files:
        raise UserError(f"Remote dataset folder {_bare(url)} does not exist or holds no data file.")
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
