"""Base models from the Hugging Face hub: one pinned commit, downloaded with resume, safetensors only."""

import re
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets.core.errors import UserError
from phi3_assets.models.directory import PATTERNS
from phi3_assets.models.hub_cache import remove_damaged

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

_FETCHED = [*PATTERNS, "README.md"]  # which names the licence


def fetch_from_hub(
    repository: str,
    commit: str,
    cache: Path,
    log: Callable[[str], None],
    *,
    begin: Callable[[int, int], None] = lambda missing, whole: None,
) -> Path:
    """Download the model files of one commit; what is already in `cache` is not downloaded again.

    A broken download goes on where it stopped when the step runs again. HF_TOKEN gives access to gated repositories,
    HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 forbids the network.

    Args:
        repository: "owner/name".
        commit: 40 hex digits.
        cache: The hub's cache layout is kept below it.
        log: Takes one line for the user.
        begin: Called once, before anything is downloaded, with the bytes of the model files that `cache` lacks and
            of all of them.

    Returns:
        A directory with the repository's files, each verified; links into the cache.

    Raises:
        UserError: No such repository or commit, no access, offline and not in the cache, or no safetensors.
        ConnectionError: The hub cannot be reached; trying again may help.
    """
    from httpx2 import HTTPError  # the hub client's own; its transport errors come through as they are
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    log(f"Fetching {repository} at {commit[:12]}")
    try:
        files = _model_files(repository, commit)
        promised = {file.path: _digest(file) for file in files}
        begin(*_sizes(files, repository, commit, cache / "hub"))
        wrong: list[str] = []
        for _ in range(2):
            snapshot = Path(
                snapshot_download(
                    repository,
                    revision=commit,
                    cache_dir=cache / "hub",
                    allow_patterns=_FETCHED,
                    ignore_patterns=["*/*"],  # other formats live in sub-folders
                )
            )
            wrong = remove_damaged(snapshot, promised)
            if not wrong:
                return snapshot
            log(f"{', '.join(wrong)} of {repository} in the cache did not hold what the hub promises; removed")
            if _offline():
                raise UserError(
                    f"{', '.join(wrong)} of {repository} in {cache / 'hub'} is damaged or missing, and HF_HUB_OFFLINE "
                    "forbids the network. Run once without it, or copy that folder from a machine that has it."
                )
        raise ConnectionError(
            f"{', '.join(wrong)} of {repository} came from the hub with other content than it promises, twice."
        )
    except GatedRepoError:
        raise UserError(
            f"{repository} is gated. Ask for access at https://huggingface.co/{repository}, make a read token at "
            "https://huggingface.co/settings/tokens, and set it as HF_TOKEN in the environment of the worker."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"base_model: the hub has no repository {repository!r}, or it is private. Check the name; for a private "
            "one set HF_TOKEN in the environment of the worker."
        ) from None
    except RevisionNotFoundError:
        raise UserError(f"base_model_revision: {repository} has no commit {commit}. See its 'Files' page.") from None
    except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
        if isinstance(error, OfflineModeIsEnabled) or _offline():
            raise UserError(
                f"{repository} at {commit[:12]} is not (whole) in {cache / 'hub'}, and HF_HUB_OFFLINE forbids the "
                "network. Run once without it, or copy that folder from a machine that has it."
            ) from None
        raise ConnectionError(f"The hub cannot be reached for {repository}: {error.__cause__ or error}") from error
    except HfHubHTTPError as error:
        raise ConnectionError(f"The hub failed on {repository}: {error}") from error
    except HTTPError as error:
        raise ConnectionError(f"The hub cannot be reached for {repository}, or broke off: {error}") from error


def licence_of(snapshot: Path) -> str:
    """The licence a repository's README.md declares, such as "mit"; "unknown" without one."""
    readme = snapshot / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    found = re.search(r"^license:\s*['\"]?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return found[1] if found else "unknown"


def _model_files(repository: str, commit: str) -> list["RepoFile"]:
    """What will be fetched; nothing when offline, where the check for pickles follows later.

    Raises:
        UserError: No safetensors; seen before gigabytes are downloaded.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    if _offline():
        return []
    tree = HfApi().list_repo_tree(repository, revision=commit)
    files = [file for file in tree if isinstance(file, RepoFile) and "/" not in file.path]
    if not any(file.path.endswith(".safetensors") for file in files):
        raise UserError(
            f"{repository} at {commit[:12]} has no *.safetensors. Pickled weights can run code when opened and are "
            "refused. Choose a commit or repository with safetensors, or convert a copy "
            "(https://huggingface.co/spaces/safetensors/convert) and name its directory."
        )
    return [file for file in files if any(fnmatch(file.path, pattern) for pattern in _FETCHED)]


def _sizes(files: list["RepoFile"], repository: str, commit: str, hub: Path) -> tuple[int, int]:
    """Bytes that the cache lacks, and of all; offline those that it has."""
    kept = hub / f"models--{repository.replace('/', '--')}"
    if not files:
        snapshot = kept / "snapshots" / commit
        return 0, sum(path.stat().st_size for path in snapshot.glob("*") if path.is_file())
    # Of another commit it is the same blob, and is linked.
    missing = [file.size for file in files if not (kept / "blobs" / _digest(file)).exists()]
    return sum(missing), sum(file.size for file in files)


def _digest(file: "RepoFile") -> str:
    return str(file.lfs.sha256 if file.lfs else file.blob_id)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
