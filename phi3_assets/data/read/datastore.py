"""A folder of an Azure Machine Learning datastore as it is listed, and its files.

Addresses are those that the portal and `az ml data` show:

    azureml://datastores/<datastore>/paths/<folder>
    azureml://subscriptions/<id>/resourcegroups/<group>/workspaces/<workspace>/datastores/<datastore>/paths/<folder>

The short one is of the workspace that the PHI3_AZURE_* settings name.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi3_assets.azure.blobs import list_folder
from phi3_assets.azure.clients import clients_of
from phi3_assets.azure.errors import readable, retried
from phi3_assets.azure.parallel import PIECES_AT_ONCE
from phi3_assets.azure.settings import load_settings
from phi3_assets.core.errors import TransientError, UserError

READER_ROLE = "'Storage Blob Data Reader' on the storage account"
_ADDRESS = re.compile(
    r"azureml://(subscriptions/(?P<subscription_id>[^/]+)/resourcegroups/(?P<resource_group>[^/]+)"
    r"/(providers/Microsoft\.MachineLearningServices/)?workspaces/(?P<workspace>[^/]+)/)?"
    r"datastores/(?P<datastore>[^/]+)/paths/(?P<folder>.+?)/*",
    re.IGNORECASE,
)


def find_files(address: str) -> tuple[Callable[[str, str], None], dict[str, dict[str, Any]]]:
    """List a folder.

    Returns:
        What writes a file, by its "name", to a path; and of each file, by its path below the folder, "name", "size" and
        "etag".

    Raises:
        UserError: The address is none of a datastore, or there is no such datastore, or no access.
        TransientError: Azure cannot be reached.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise UserError(
            f"dataset_path {address!r} must be 'azureml://datastores/<datastore>/paths/<folder>', or its long form, "
            "which begins with azureml://subscriptions/."
        )
    named = {name: value for name, value in match.groupdict().items() if value}
    folder = named.pop("folder")
    container = clients_of(load_settings(overrides=named).require()).container
    what = f"Remote dataset folder {address}"
    with readable(what, READER_ROLE):
        listed = list_folder(container, folder)
    files = {path: {"name": f"{folder}/{path}", "size": blob.bytes, "etag": blob.etag} for path, blob in listed.items()}
    etags = {info["name"]: info["etag"] for info in files.values()}

    def write(name: str, path: str) -> None:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError

        unchanged = {"etag": etags[name], "match_condition": MatchConditions.IfNotModified}

        def fetch() -> None:
            with Path(path).open("wb") as file:
                container.download_blob(name, max_concurrency=PIECES_AT_ONCE, **unchanged).readinto(file)

        with readable(what, READER_ROLE):
            try:
                retried(fetch)
            except ResourceModifiedError as error:
                raise TransientError(f"{what}: {name} was changed while it was read.") from error

    return write, files
