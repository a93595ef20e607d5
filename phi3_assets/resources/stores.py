"""Which store the environment names: PHI3_STORE, and where that says nothing, what suits PHI3_EXECUTION."""

import os
from pathlib import Path

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.store import ArtifactStore

STORES: dict[str, type[ArtifactStore]] = {"local": LocalArtifactStore, "azure_blob": BlobArtifactStore}
# A cluster reads and writes what it is given in a container.
_IN_AZURE = ("azureml", "azure_arc")


def make_store(home: Path | None = None) -> ArtifactStore:
    """The store with this home; nothing is reached for yet.

    Args:
        home: PHI3_HOME; None: the environment's, else ./home.

    Raises:
        UserError: PHI3_STORE names no store.
    """
    suits = "azure_blob" if os.environ.get("PHI3_EXECUTION") in _IN_AZURE else "local"
    name = os.environ.get("PHI3_STORE") or suits
    if name not in STORES:
        raise UserError(f"PHI3_STORE={name!r}: choose one of {', '.join(STORES)}.{nearest(name, list(STORES))}")
    return STORES[name](home=str(home) if home else "")
