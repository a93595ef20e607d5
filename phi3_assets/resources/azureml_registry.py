"""Releases as versions of a model of the workspace, for whoever deploys from there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from phi3_assets.azure.clients import Clients, clients_of
from phi3_assets.azure.errors import WORKSPACE_ROLE, readable
from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.resources.blob_store import BlobArtifactStore

if TYPE_CHECKING:
    from azure.ai.ml.entities import Model

RELEASE = "phi3/release"
"""Tag of a version: identity of its release."""


def register(
    store: BlobArtifactStore, model: str, release: ArtefactRef, description: str, tags: Mapping[str, str]
) -> str:
    """Register a release, unless it is. Its files stay where they are; the version is their address.

    Args:
        store: Where the release stands.
        model: Name of the model.
        release: The release_bundle.
        description: For people.
        tags: More than the release's identity, which is one in any case.

    Returns:
        Name and version. The version is how the release's identity begins, so of two that register it at the same time
        each finds what it wanted.

    Raises:
        UserError: It is refused, or the version is of something else; says what to do.
        TransientError: The service is away.
    """
    from azure.ai.ml.entities import Model

    clients, version = clients_of(store.settings), release.identity[:SHORT]
    mend = (
        f"`az ml model list --name {model} {store.settings.az} --output table` shows what there is; materialise "
        "champion again when it is mended."
    )
    with readable(f"Model {model}:{version}", WORKSPACE_ROLE, mend):
        found = _find(clients, model, version)
        if found is None:
            found = clients.ml.models.create_or_update(
                Model(
                    name=model,
                    version=version,
                    path=store.settings.uri(store.attempt_path(release)),
                    type="custom_model",
                    description=description,
                    tags={RELEASE: release.identity, **tags},
                )
            )
    if (found.tags or {}).get(RELEASE) != release.identity:
        raise UserError(
            f"Model {model}:{version} is not release {release.identity[:SHORT]}: its tag {RELEASE} says another one, "
            "or is gone. Give recipe field register_model another name, or mend the tag with `az ml model update "
            f'--name {model} --version {version} {store.settings.az} --set tags."{RELEASE}"={release.identity}`.'
        )
    return f"{model}:{version}"


def _find(clients: Clients, model: str, version: str) -> "Model | None":
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return clients.ml.models.get(model, version)
    except ResourceNotFoundError:
        return None
