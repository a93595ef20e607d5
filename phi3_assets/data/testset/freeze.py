"""Freezing test sets: which versions there are, which step proposed the newest, and adding one.

A test set is frozen when `raw_dataset` has been made and no version equal to the one it used stands yet. From then on
it is an input of `raw_dataset`. The step that proposed it cannot have had it as input; so that an unchanged home is not
made anew once for that, each file is named after its proposer: `0001-<identity>.parquet`.
"""

import shutil
from pathlib import Path

import filelock

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import FileEntry, fsync_path, hash_file, hash_files, user_files
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import digest_of


def versions(folder: Path) -> dict[str, FileEntry]:
    """Every frozen test set by file name, oldest first; empty before the first freeze."""
    if not folder.is_dir():
        return {}
    return hash_files(folder, [name for name in user_files(folder, "Folder of test sets") if name.endswith(".parquet")])


def proposer(name: str) -> str:
    """First digits of the identity of the `raw_dataset` that proposed this version."""
    return Path(name).stem.partition("-")[2]


def freeze(folder: Path, artefact: Path, identity: str, made_with: str | None) -> str | None:
    """Freeze the test set of a `raw_dataset`, unless it is the present one already.

    Args:
        folder: Where the versions stand.
        artefact: Directory of the `raw_dataset`.
        identity: Its identity.
        made_with: Content digest of the versions that it had as input; None: none.

    Returns:
        The name of the new version, or None when there was nothing to freeze.

    Raises:
        UserError: Another run froze a test set since this one was planned.
    """
    from phi3_assets.data.testset.frozen import TEST_SET  # here, because it imports pyarrow

    folder.mkdir(parents=True, exist_ok=True)
    proposed = artefact / TEST_SET
    with filelock.FileLock(folder / ".lock"):
        present = versions(folder)
        newest = max(present, default=None)
        if newest is not None and present[newest].sha256 == hash_file(proposed).sha256:
            return None
        if (digest_of(present) if present else None) != made_with:
            raise UserError(
                f"Another run froze a test set in {folder} while this one was running, so the split made here may "
                "train on its rows. Run it again: it will use that test set."
            )
        name = f"{len(present) + 1:04d}-{identity[:SHORT]}.parquet"
        temporary = folder / f".{name}.tmp"
        shutil.copyfile(proposed, temporary)
        fsync_path(temporary)
        temporary.replace(folder / name)
        fsync_path(folder)
        return name
