"""Where the training data of an Olive configuration is: recipe field dataset_path, or what to fill in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phi3_assets.olive import legacy_azure as azure
from phi3_assets.olive.legacy_view import Data, View
from phi3_assets.olive.legacy_walk import flat, items, mapping

FOLDER = "<folder of your data>"
_COMMIT = "<commit>"
# Names under which `datasets` reads files of a kind.
_READERS = {"json", "csv", "parquet", "arrow", "text", "pandas", "xml", "generator", "imagefolder", "audiofolder"}
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_HUB_FILE = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/.*)?")
_FOLDERS = ("abfs", "abfss", "az", "s3", "gs", "gcs")
# Olive's own components; another is code of the configuration's author.
OWN_COMPONENTS = ("huggingface_dataset", "local_dataset", "skip_dataset", "text_generation_huggingface_pre_process")
_PATHS = ("path", "name", "file", "folder")
Told = dict[tuple[str, ...], tuple[str, str]]


@dataclass
class Source:
    """Where the data is.

    Attributes:
        address: For recipe field dataset_path; with "<...>" in it where something is to be filled in.
        missing: What is to be filled in, as a sentence; "" where nothing is.
        told: Verdict and reason of the keys of load_dataset that say it, by their place in it.
    """

    address: str
    missing: str = ""
    told: Told = field(default_factory=dict)


def source_of(view: View) -> Source:
    """Where the data that the configuration trains on is."""
    if view.training is None:
        return _without(view)
    return _source(view.training, view)


def address_of(data: Data, view: View) -> str:
    """What recipe field dataset_path would be for another data config; "" where it names nothing that can be read."""
    address = _source(data, view).address
    return "" if address == FOLDER else address


def is_code(data: Data) -> bool:
    """Whether rows are made by code of the configuration's author."""
    kind = data.load.get("type")
    return isinstance(kind, str) and kind.lower() not in OWN_COMPONENTS


def _without(view: View) -> Source:
    use = f"set dataset_path to the folder of your data, or to '' for PHI3_HOME/datasets, in place of {FOLDER}"
    if view.fine_tuning is None:
        return Source(FOLDER, f"the configuration trains on no data, and evaluation needs some: {use}")
    return Source(FOLDER, f"the configuration does not say what it trains on: {use}")


def _source(data: Data, view: View) -> Source:
    load = {key: value for key, value in data.load.items() if not azure.holds_secret((key,), value)}
    if isinstance(block := load.get("data_files"), Mapping) and _is_datastore(block := flat(block)):
        return _of_datastore(block, view)
    name = load.get("data_name") or load.get("dataset_name")
    name = name.strip() if isinstance(name, str) else ""
    files = list(_files(load.get("data_files")))
    if isinstance(folder := load.get("data_dir"), str) and folder.strip() and not azure.is_placeholder(folder):
        files = [f"{folder.rstrip('/')}/"] if not files else [f"{folder.rstrip('/')}/{file}" for file in files]
    if any(azure.has_hole(text) for text in (name, *files)):
        return _asked("a placeholder stands where the data is named", "data_name", "data_files", "data_dir")
    if name and name.lower() not in _READERS:
        return _of_name(name, load.get("revision"))
    if files:
        return _of_files(files, view.config.get("data_root"))
    return _asked("the configuration names no file of its data", "data_name", "data_files")


def _of_name(name: str, revision: Any) -> Source:
    if hub := _HUB_FILE.fullmatch(name):
        return _of_hub(hub["name"], revision or hub["revision"], "data_name")
    if _HUB.fullmatch(name) and "." not in (name[0], name[-1]) and not re.search(r"\.(csv|jsonl?|parquet)$", name):
        return _of_hub(name, revision, "data_name")
    if re.fullmatch(r"[\w.-]+", name):
        return _asked(
            f"{name!r} is a dataset of the hub by a short name; dataset_path takes hf:owner/name@commit, as its page "
            "shows them, or a folder",
            "data_name",
        )
    return _of_files([name], None)


def _of_hub(name: str, revision: Any, key: str) -> Source:
    if isinstance(revision, str) and re.fullmatch("[0-9a-f]{40}", revision):
        address = f"hf:{name}@{revision}"
        told = ("renamed", f"recipe field dataset_path: {address}")
        return Source(address, "", {(key,): told, ("revision",): told})
    address = f"hf:{name}@{_COMMIT}"
    missing = (
        f"dataset {name} of the hub must be pinned, since a branch can move under you: in dataset_path put the commit, "
        f"40 hex digits under 'Files and versions' on the dataset's page, in place of {_COMMIT}"
    )
    told = ("renamed", f"recipe field dataset_path: {address}; the commit is to be filled in")
    return Source(address, missing, {(key,): told, ("revision",): told})


def _of_files(files: list[str], root: Any) -> Source:
    if hub := _HUB_FILE.fullmatch(files[0]):
        return _of_hub(hub["name"], hub["revision"], "data_files")
    folders = set()
    for file in files:
        scheme, is_url, _ = file.partition("://")
        if is_url and scheme not in _FOLDERS:
            return _asked(f"{scheme} is no way to a folder: download the files", "data_files")
        path = file if is_url else file.replace("\\", "/")
        if isinstance(root, str) and root and not is_url and not re.match(r"/|~|[A-Za-z]:", path):
            path = f"{root.rstrip('/')}/{path}"
        folders.add(_folder(path))
    if len(folders) > 1:
        return _asked("the files lie in several folders, and a recipe reads one: put them into one", "data_files")
    (folder,) = folders
    if not folder:
        return _asked(
            f"{files[0]} lies in the folder that Olive is started in, where other files would be read as data: put it "
            "into a folder of its own",
            "data_files",
        )
    told = ("replaced", f"recipe field dataset_path: {folder}, the folder; other files of data in it are read too")
    return Source(folder, "", {(key,): told for key in ("data_files", "data_dir", "data_name")})


def _of_datastore(block: Mapping[str, Any], view: View) -> Source:
    block = {name: value for name, value in block.items() if not azure.holds_secret((name,), value)}
    address, why = azure.data_address(block, mapping(view.config.get("azureml_client")))
    key = "datastore_url" if "datastore_url" in block else "relative_path"
    if address:
        return Source(address, "", {("data_files", key): ("renamed", why)})
    return Source(FOLDER, why, {("data_files", key): ("replaced", why)})


def _asked(why: str, *keys: str) -> Source:
    told = ("replaced", f"{why}; recipe field dataset_path is to be filled in")
    return Source(FOLDER, f"{why}; then set dataset_path in place of {FOLDER}", {(key,): told for key in keys})


def _is_datastore(block: Mapping[str, Any]) -> bool:
    return bool({"datastore_name", "datastore_url", "relative_path"} & set(block)) or (
        str(block.get("type")).lower() == "azureml_datastore"
    )


def _files(value: Any) -> list[str]:
    """Paths of files: one, a list, a mapping of splits to either, or Olive's resource of a local file."""
    if isinstance(value, str):
        return [value] if value.strip() else []
    if isinstance(value, Mapping):
        inner = flat(value)
        if isinstance(inner.get("type"), str):
            return [inner[key] for key in _PATHS if isinstance(inner.get(key), str)][:1]
        return [path for one in inner.values() for path in _files(one)]
    return [path for one in items(value) for path in _files(one)]


def _folder(path: str) -> str:
    """The folder of a file; a path whose last part has no ending is a folder, "" one without a folder of its own."""
    head, slash, last = path.rpartition("/")
    if last and not re.search(r"\.\w+$|\*", last):
        return f"{path}/"
    while "*" in head:
        head = head.rpartition("/")[0]
    return "" if head in ("", ".") and not (slash and path.startswith("/")) else f"{head}/"
