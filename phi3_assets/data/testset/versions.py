"""The test sets of a product in its ledger: every version there ever was, which one is present, and why.

`products/<product>/test_sets/index.json` names the versions; the bytes of each stand beside it and are written first.
The index changes by write-if-unchanged, so of two runs that freeze at one time one is told. A step never reads the
ledger: it gets a snapshot, a folder named and pinned by its content.

A test set is frozen when the `raw_dataset` that proposed it has been made; that step cannot have had it as input. So
that an unchanged home is not made anew once for that, a version knows its proposer.
"""

import datetime as dt
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import FileEntry, fsync_path, hash_bytes, hash_files
from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import Ledger, product_key, read_json, update, update_json
from phi3_assets.core.manifest import digest_of

PRESENT, EARLIER, RETIRED = "present", "earlier", "retired"
FOLDERS = (PRESENT, EARLIER)
"""The folders of a snapshot; what is retired is an earlier version to a step: never trained on, not tested with."""
ROOM = "test_sets"
_INDEX = "index.json"


@dataclass(frozen=True)
class Version:
    """One test set.

    Attributes:
        file: Name of its value in the ledger, beside the index.
        sha256: Of its bytes.
        proposer: Identity of the `raw_dataset` that proposed it, or the beginning of it; empty: not known.
        rows: Rows that it holds.
        at: When it was frozen, UTC.
        state: present, earlier or retired.
        made_with: Digest of the snapshot that the proposer had; None: there was none.
        after: Digest of the snapshot that it was first part of.
        settings: The recipe fields it was frozen under.
        reason: Why it was retired.
        by: Who retired it.
        forgotten: Rows whose texts were erased.
    """

    file: str
    sha256: str
    proposer: str
    rows: int
    at: str
    state: str = PRESENT
    made_with: str | None = None
    after: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None
    by: str | None = None
    forgotten: int = 0


def index_key(product: str) -> str:
    """Where the index of a product stands."""
    return product_key(product, ROOM, _INDEX)


def file_key(product: str, version: Version) -> str:
    """Where the bytes of a version stand."""
    return product_key(product, ROOM, version.file)


def read_versions(ledger: Ledger, product: str) -> list[Version]:
    """Every version, oldest first; empty before the first freeze."""
    return _versions(read_json(ledger, index_key(product)))


def read_history(ledger: Ledger, product: str) -> list[dict[str, Any]]:
    """What was done to the test sets, by whom and why, oldest first."""
    return list((read_json(ledger, index_key(product)) or {}).get("history", []))


def present(versions: Sequence[Version]) -> Version | None:
    """The version that is tested with."""
    return next((version for version in versions if version.state == PRESENT), None)


def snapshot_files(versions: Sequence[Version]) -> dict[str, Version]:
    """Path in a snapshot of each version: a function of contents and states alone."""
    return {
        f"{PRESENT if version.state == PRESENT else EARLIER}/{version.sha256[:SHORT]}.parquet": version
        for version in versions
    }


def snapshot_digest(versions: Sequence[Version]) -> str | None:
    """Content digest of the snapshot; None without versions."""
    files = snapshot_files(versions)
    return digest_of({path: FileEntry(0, version.sha256) for path, version in files.items()}) if files else None


def read_bytes(ledger: Ledger, product: str, version: Version) -> bytes:
    """The bytes of a version.

    Raises:
        DamagedArtefact: They are gone or others.
    """
    key = file_key(product, version)
    value = ledger.read(key)
    if value is None or hash_bytes(value.content).sha256 != version.sha256:
        raise DamagedArtefact(
            f"Frozen test set {ledger.where(key)} is {'missing' if value is None else 'damaged'}. Restore it from a "
            "backup: without it nobody can tell whether a model was trained on its rows."
        )
    return value.content


def lay_out(ledger: Ledger, product: str, versions: Sequence[Version], room: Path) -> tuple[Path, str] | None:
    """Lay out the snapshot of these versions below `room`, unless it lies there whole.

    Returns:
        The folder and its content digest; None without versions.
    """
    digest = snapshot_digest(versions)
    if digest is None:
        return None
    folder = room / digest[:SHORT]
    files = snapshot_files(versions)
    if folder.is_dir():
        if digest_of(hash_files(folder)) == digest:
            return folder, digest
        shutil.rmtree(folder)
    temporary = room / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    for path, version in files.items():
        (temporary / path).parent.mkdir(parents=True, exist_ok=True)
        (temporary / path).write_bytes(read_bytes(ledger, product, version))
        fsync_path(temporary / path)
    try:
        temporary.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(temporary)
        if digest_of(hash_files(folder)) != digest:
            raise
    return folder, digest


def freeze(
    ledger: Ledger, product: str, proposed: Path, identity: str, made_with: str | None, settings: dict[str, Any]
) -> Version | None:
    """Freeze a test set that a `raw_dataset` proposed, unless it is the present one already.

    Args:
        ledger: Where the product's test sets stand.
        product: The product.
        proposed: The file.
        identity: Of the proposing artefact.
        made_with: Digest of the snapshot that it had as input; None: none.
        settings: The recipe fields that it was made under.

    Returns:
        The new version, or None when there was nothing to freeze.

    Raises:
        UserError: Another run froze a test set since this one was planned.
    """
    content = proposed.read_bytes()
    sha256 = hash_bytes(content).sha256
    versions = read_versions(ledger, product)
    new = Version(
        file=f"{len(versions) + 1:04d}-{identity[:SHORT]}.parquet",
        sha256=sha256,
        proposer=identity,
        rows=count_rows(proposed),
        at=_now(),
        made_with=made_with,
        settings=settings,
    )
    if _is_frozen(versions, new):
        return None
    update(ledger, file_key(product, new), lambda _: content)

    def add(index: Any | None) -> Any | None:
        others = _versions(index)
        if _is_frozen(others, new):
            return None
        if snapshot_digest(others) != made_with:
            raise UserError(
                f"Another run froze or retired a test set of product {product} while this one was running, so the "
                "split made here may train on its rows. Run it again: it will use what is frozen now."
            )
        before = [replace(version, state=EARLIER) if version.state == PRESENT else version for version in others]
        added = replace(new, after=snapshot_digest([*before, new]))
        return _index(index, [*before, added], action="freeze", versions=[new.file])

    index = update_json(ledger, index_key(product), add)
    return next(
        (version for version in _versions(index) if version.file == new.file and version.sha256 == sha256), None
    )


def retire(ledger: Ledger, product: str, reason: str, by: str) -> Version:
    """Test no longer with the present version; the next `raw_dataset` proposes one from its data.

    Raises:
        UserError: No version is present.
    """
    retired: list[Version] = []

    def change(index: Any | None) -> Any:
        versions = _versions(index)
        now = present(versions)
        if now is None:
            raise UserError(f"Product {product} has no present test set to retire; the next run proposes one.")
        done = replace(now, state=RETIRED, reason=reason, by=by)
        retired[:] = [done]
        changed = [done if version is now else version for version in versions]
        return _index(index, changed, action="retire", reason=reason, by=by, versions=[now.file])

    update_json(ledger, index_key(product), change)
    return retired[0]


def replace_bytes(
    ledger: Ledger, product: str, erase: Callable[[bytes], tuple[bytes, int]], reason: str, by: str
) -> list[tuple[Version, Version]]:
    """Change every version in place, for `forget`: the bytes that stood before are gone from the ledger.

    Args:
        ledger: Where the product's test sets stand.
        product: The product.
        erase: From a version's bytes to what remains, and how many rows were erased.
        reason: For the history.
        by: Who asked for it.

    Returns:
        The versions that changed, each as it was and as it is.
    """
    changed: list[tuple[Version, Version]] = []

    def change(index: Any | None) -> Any | None:
        changed.clear()
        versions = []
        for version in _versions(index):
            content, rows = erase(read_bytes(ledger, product, version))
            if not rows:
                versions.append(version)
                continue
            stem, total = version.file.partition(".")[0], version.forgotten + rows
            new = replace(version, file=f"{stem}.{total}.parquet", sha256=hash_bytes(content).sha256, forgotten=total)
            update(ledger, file_key(product, new), lambda _, content=content: content)  # type: ignore[misc]
            changed.append((version, new))
            versions.append(new)
        if not changed:
            return None
        names = [new.file for _, new in changed]
        rows_of = {new.file: new.forgotten - old.forgotten for old, new in changed}
        return _index(index, versions, action="forget", reason=reason, by=by, versions=names, rows=rows_of)

    update_json(ledger, index_key(product), change)
    _sweep(ledger, product)
    return changed


def _sweep(ledger: Ledger, product: str) -> None:
    """Remove what a `forget` replaced, or one that was killed left; what another run is freezing has a later number."""
    versions = read_versions(ledger, product)
    named = {index_key(product), *(file_key(product, version) for version in versions)}
    for key in ledger.keys(product_key(product, ROOM) + "/"):
        number = key.rpartition("/")[2][:4]
        if key not in named and number.isdigit() and int(number) <= len(versions):
            ledger.remove(key)


def adopt(ledger: Ledger, product: str, folder: Path) -> None:
    """Take over the versions of a home from before the ledger, once: none of its frozen rows may be lost.

    Where the product has versions already they come in as earlier ones.
    """
    files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
    if not files:
        return
    taken = []
    for file in files:
        content = file.read_bytes()
        version = Version(
            file=f"0000-{file.stem}.parquet",
            sha256=hash_bytes(content).sha256,
            proposer=file.stem.partition("-")[2],
            rows=count_rows(file),
            at=dt.datetime.fromtimestamp(file.stat().st_mtime, dt.UTC).isoformat(timespec="seconds"),
            state=EARLIER,
        )
        update(ledger, file_key(product, version), lambda _, content=content: content)  # type: ignore[misc]
        taken.append(version)

    def change(index: Any | None) -> Any | None:
        others = _versions(index)
        known = {version.sha256 for version in others}
        new = [version for version in taken if version.sha256 not in known]
        if not new:
            return None
        if not others:
            new[-1] = replace(new[-1], state=PRESENT)
        reason = "found in a home from before the ledger"
        return _index(index, [*new, *others], action="adopt", reason=reason, versions=[each.file for each in new])

    update_json(ledger, index_key(product), change)
    shutil.rmtree(folder)


def count_rows(file: Path) -> int:
    """Rows of a test set.

    Raises:
        UserError: It cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq  # here, because code locations load this module

    try:
        return int(pq.read_metadata(file).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Test set {file} cannot be read ({type(error).__name__}). Restore it from a backup.") from None


def _is_frozen(versions: Sequence[Version], new: Version) -> bool:
    now = present(versions)
    return now is not None and (now.sha256 == new.sha256 or now.proposer == new.proposer)


def _versions(index: Any | None) -> list[Version]:
    return [Version(**entry) for entry in index["versions"]] if index else []


def _index(index: Any | None, every: Sequence[Version], action: str, **facts: Any) -> dict[str, Any]:
    history = list(index["history"]) if index else []
    return {
        "versions": [asdict(version) for version in every],
        "history": [*history, {"at": _now(), "action": action, **facts}],
    }


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
