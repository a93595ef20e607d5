"""What ticks of a sensor remember of a dataset folder: in files, because a cursor is written into Dagster's database.

It stands in the home's work directory and belongs to this machine, for a file's dates say nothing elsewhere. It may be
lost: then every file is read once more, and nothing is started twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_assets.core.files import write_atomically
from phi3_assets.core.step import sha256_of
from phi3_assets.data.watched.folder import File

_FORMAT = 1


@dataclass(frozen=True)
class Memory:
    """The folder as the last tick left it.

    Attributes:
        files: Its files by path.
        version: Their data version; "": not known then.
        since_s: Unix time of the tick that first found that version.
    """

    files: Mapping[str, File]
    version: str = ""
    since_s: float = 0.0


class Notes:
    """Where the memory of one dataset folder stands."""

    def __init__(self, home: Path, product: str, dataset_path: str) -> None:
        """Of the folder that this recipe of the product names."""
        self._folder = home / "work" / "watched" / sha256_of([product, dataset_path])[:16]

    def last(self) -> Memory:
        """What the last tick left; nothing where that cannot be read."""
        value = self._read("seen.json")
        try:
            return Memory(_files(value["files"]), str(value["version"]), float(value["since_s"]))
        except (KeyError, TypeError, ValueError):
            return Memory({})

    def keep(self, memory: Memory) -> None:
        """Leave this for the next tick."""
        value = {"version": memory.version, "since_s": memory.since_s, "files": _rows(memory.files)}
        self._write("seen.json", value)

    def asked(self, version: str) -> Mapping[str, File] | None:
        """The files of the data version that was trained on last; None: not remembered, or it is another version."""
        value = self._read("asked.json")
        try:
            return _files(value["files"]) if value["version"] == version else None
        except (KeyError, TypeError, ValueError):
            return None

    def keep_asked(self, version: str, files: Mapping[str, File]) -> None:
        """Remember the files of a data version that is trained on."""
        self._write("asked.json", {"version": version, "files": _rows(files)})

    def _read(self, name: str) -> Any:
        import orjson

        try:
            value = orjson.loads((self._folder / name).read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return value if isinstance(value, dict) and value.get("format") == _FORMAT else None

    def _write(self, name: str, value: dict[str, Any]) -> None:
        import orjson

        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / name, orjson.dumps({"format": _FORMAT, **value}))


def _rows(files: Mapping[str, File]) -> dict[str, tuple[Any, ...]]:
    return {path: tuple(file) for path, file in files.items()}


def _files(rows: Mapping[str, Any]) -> dict[str, File]:
    return {path: File(*row) for path, row in rows.items()}
