"""Which files of a folder are data: names, formats, compression. Reading them is `readers`."""

from dataclasses import dataclass
from pathlib import Path

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import user_files

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
_READABLE = "csv, tsv, json, jsonl, parquet and arrow, each also as .gz"
# What Hugging Face's save_to_disk writes beside the rows.
_BOOKKEEPING = {"dataset_dict.json", "dataset_info.json", "state.json"}


@dataclass(frozen=True)
class SourceFile:
    """One data file.

    Attributes:
        name: Path below the folder with '/' between parts; what reports call the file.
        path: Where it is now; never leaves the step.
        format: csv, json, jsonl, parquet or arrow.
        gzip: True if the content is compressed with gzip.
    """

    name: str
    path: Path
    format: str
    gzip: bool


def list_files(folder: Path) -> tuple[list[SourceFile], list[str]]:
    """Find the data files below a folder, in the order of their names.

    Returns:
        The data files, and the names of files that are none (an unknown ending), out of those that `user_files`
        counts: what is read is in the identity and watched by the sensor.

    Raises:
        UserError: No such folder, no data file in it, or something that is no file.
    """
    if not folder.is_dir():
        raise UserError(f"Dataset folder {folder} does not exist. Create it and put {_READABLE} files there.")
    files: list[SourceFile] = []
    others: list[str] = []
    for name in user_files(folder, "Dataset folder"):
        path = folder / name
        if _is_bookkeeping(path):
            continue
        suffixes = [suffix.lower() for suffix in path.suffixes]
        gzip = suffixes[-1:] == [".gz"]
        ending = suffixes[-2 if gzip else -1] if len(suffixes) > gzip else ""
        if ending in FORMATS:
            files.append(SourceFile(name, path, FORMATS[ending], gzip))
        else:
            others.append(name)
    if not files:
        seen = f" It holds only: {', '.join(others[:5])}." if others else " It is empty."
        raise UserError(f"Dataset folder {folder} has no data file.{seen} Readable are {_READABLE}.")
    return files, others


def _is_bookkeeping(path: Path) -> bool:
    return path.name in _BOOKKEEPING and (path.name == "dataset_dict.json" or any(path.parent.glob("*.arrow")))
