"""The ledger as files of a home, one a key."""

import hashlib
from pathlib import Path

import filelock

from phi3_assets.core.files import write_atomically
from phi3_assets.core.ledger import Ledger, LedgerConflict, Value, check_key

LOCK_TIMEOUT_S = 30.0


class LocalLedger(Ledger):
    """Values are replaced by one rename, under a lock that the kernel drops when its holder dies."""

    def __init__(self, folder: Path) -> None:
        """Values stand below `folder`, which need not exist yet."""
        self._folder = folder

    def read(self, key: str) -> Value | None:
        """See `Ledger.read`."""
        try:
            content = self._path(key).read_bytes()
        except FileNotFoundError:
            return None
        return Value(content, _version(content))

    def write(self, key: str, content: bytes, unchanged: str | None) -> str:
        """See `Ledger.write`."""
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            present = self.read(key)
            if (present.version if present else None) != unchanged:
                raise LedgerConflict(f"{path} was written by somebody else.")
            write_atomically(path, content)
        return _version(content)

    def remove(self, key: str) -> None:
        """See `Ledger.remove`."""
        path = self._path(key)
        if path.exists():
            with self._locked():
                path.unlink(missing_ok=True)

    def keys(self, prefix: str) -> list[str]:
        """See `Ledger.keys`."""
        folder = self._path(prefix.rstrip("/"))
        return sorted(
            path.relative_to(self._folder).as_posix()
            for path in folder.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        )

    def where(self, key: str) -> str:
        """See `Ledger.where`."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / check_key(key)

    def _locked(self) -> filelock.BaseFileLock:
        # One for all keys: a lock for each would be left behind by values that are removed.
        return filelock.FileLock(self._folder / ".lock", timeout=LOCK_TIMEOUT_S)


def _version(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
