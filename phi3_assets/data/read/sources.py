"""Which files of a folder are data: names, formats, compression. Reading them is `readers`."""

from dataclasses import dataclass
from pathlib import Path

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import data_files, data_format, other_files

_READABLE = "csv, tsv, xlsx (xls, xlsb, ods), json, jsonl, parquet and arrow, each also as .gz"
# What Hugging Face's save_to_disk writes beside the rows.
_BOOKKEEPING = {"dataset_dict.json", "dataset_info.json", "state.json"}


@dataclass(frozen=True)
class SourceFile:
    """One data file.

    Attributes:
        name: Path below the folder with '/' between parts; what reports call the file.
        path: Where it is now; never leaves the step.
        format: csv, json, jsonl, parquet, arrow, xlsx, xls, xlsb or ods.
        gzip: True if the content is compressed with gzip.
        encoding: What its text has if it is neither marked nor UTF-8, by the recipe; "": nothing is said.
    """

    name: str
    path: Path
    format: str
    gzip: bool
    encoding: str = ""


def list_files(folder: Path) -> tuple[list[SourceFile], list[str]]:
    """Find the data files below a folder, in the order of their names.

    Returns:
        The data files, which are in the identity and watched by the sensor, and the names of files that are none.

    Raises:
        UserError: No such folder, no data file in it, or something that is no file.
    """
    if not folder.is_dir():
        raise UserError(f"Dataset folder {folder} does not exist. Create it and put {_READABLE} files there.")
    files = [
        SourceFile(name, folder / name, *known)
        for name in data_files(folder, "Dataset folder")
        if (known := data_format(name)) and not _is_bookkeeping(folder / name)
    ]
    others = other_files(folder, "Dataset folder")
    if not files:
        seen = f" It holds only: {', '.join(others[:5])}." if others else " It is empty."
        raise UserError(f"Dataset folder {folder} has no data file.{seen} Readable are {_READABLE}.")
    return files, others


def _is_bookkeeping(path: Path) -> bool:
    return path.name in _BOOKKEEPING and (path.name == "dataset_dict.json" or any(path.parent.glob("*.arrow")))
