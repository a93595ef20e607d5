"""Secrets that may be found nowhere, and the search for them in all that a run leaves behind, packed or not."""

import gzip
import sqlite3
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

# In a format that detect-secrets knows, as a row of somebody's tickets would hold it.
IN_A_ROW = "ghp_" + "c4naryR0wc4naryR0wc4naryR0wc4naryR0w"
IN_THE_ENVIRONMENT = "canary3nvironmentHx8Qz"
IN_THE_RECIPE = "canaryR3cipePw5Lk"


def left_behind(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and content, as text, of every file below a folder; databases, tables and archives are opened."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        yield str(path), path.read_bytes().decode("latin-1")
        if path.suffix == ".parquet":
            yield f"{path}, opened", repr(pq.read_table(path).to_pylist())
        elif path.suffix == ".db":
            with sqlite3.connect(path) as connection:
                yield f"{path}, opened", "\n".join(connection.iterdump())
        elif path.suffix == ".gz":
            yield f"{path}, opened", gzip.decompress(path.read_bytes()).decode("latin-1")
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield f"{path}, {name}", archive.read(name).decode("latin-1")


def found_in(folder: Path, secrets: tuple[str, ...], own: Path, copies: Path | None = None) -> list[str]:
    """Where below a folder a secret stands.

    Args:
        folder: Everything below it is searched, to the end.
        secrets: What to look for.
        own: Folder of the user's own files, which may hold what they like.
        copies: Where copies of those may lie. A file there is let pass if it is one, byte for byte; what lies beside
            it is searched.
    """
    theirs = {path.read_bytes() for path in own.rglob("*") if path.is_file()}

    def is_theirs(name: str) -> bool:
        path = Path(name)
        if path.is_relative_to(own):
            return True
        return copies is not None and path.is_relative_to(copies) and path.is_file() and path.read_bytes() in theirs

    found = [(name, secret) for name, text in left_behind(folder) for secret in secrets if secret in text]
    return [f"{secret} in {name}" for name, secret in found if not is_theirs(name)]
