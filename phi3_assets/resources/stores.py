"""Which store the environment names: PHI3_STORE, and where that says nothing, what suits PHI3_EXECUTION."""

import os
from pathlib import Path

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.resources.chosen_execution import LOCAL, chosen
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.store import ArtifactStore

LOCAL_STORE, AZURE_BLOB = STORES = ("local", "azure_blob")


def make_store(home: Path | None = None) -> ArtifactStore:
    """The store with this home; nothing is reached for yet.

    Args:
        home: PHI3_HOME; None: the environment's, else ./home.

    Raises:
        UserError: PHI3_STORE names no store, or PHI3_EXECUTION no execution.
    """
    # A cluster reads and writes what it is given in a container, and so must whoever works with it.
    suits = LOCAL_STORE if set(chosen(os.environ).values()) == {LOCAL} else AZURE_BLOB
    name = os.environ.get("PHI3_STORE") or suits
    if name not in STORES:
        raise UserError(f"PHI3_STORE={name!r}: choose one of {', '.join(STORES)}.{nearest(name, list(STORES))}")
    where = str(home) if home else ""
    if name == AZURE_BLOB:
        # A quarter of what loading this project adds to loading Dagster, for those who want it.
        from phi3_assets.resources.blob_store import BlobArtifactStore

        return BlobArtifactStore(home=where)
    return LocalArtifactStore(home=where)
