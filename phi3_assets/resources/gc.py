"""What a home holds that nothing needs any more, and removing it beside runs that go on.

Kept is what a champion of any time, the latest artefact of each kind or a running run is, and all that they were made
of; what another process makes right now; and whatever is younger than some days. What is to go is decided first and
shown; it is removed one by one, each looked at again under its claim, so a run that started meanwhile loses nothing
that it has taken up. A run that had planned with an artefact an instant before it went makes it anew, or says that it
is gone. Where artefacts stand elsewhere, only the home's copies of them are looked at: there nothing is removed.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg

from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.home import claim_path, work_dir
from phi3_assets.core.ledger import product_key, products, read_json, run_key
from phi3_assets.core.locks import Holder, is_held, try_lock
from phi3_assets.core.manifest import MANIFEST, ArtefactRef, read_manifest
from phi3_assets.core.reachable import Standing, reachable
from phi3_assets.data.cache import remove_stale, stale
from phi3_assets.evaluation.kept_scores import ROOM as SCORES
from phi3_assets.release.champion import Champion
from phi3_assets.resources.blob_copies import FETCHING, PEEKED
from phi3_assets.resources.disk import folders, mtime, newest, size
from phi3_assets.resources.runs import GOING_ON, open_instance
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import ALL_STEPS, FORMATTED_CORPUS, LORA_ADAPTER, RAW_DATASET

DAY_S = 24 * 3600
_GONE = ".gone-"


@dataclass(frozen=True)
class Garbage:
    """Something that may go.

    Attributes:
        what: "artefact", "checkpoints", "leftover", "log", "page", "copy" or "cache".
        path: Where it is.
        bytes: Its size, with what goes along.
        claim: The work directory whose claim must be held to remove it.
        ref: Of an artefact: its name.
        along: What makes no sense without it.
    """

    what: str
    path: Path
    bytes: int
    claim: Path | None = None
    ref: ArtefactRef | None = None
    along: tuple[Path, ...] = ()


def roots(store: ArtifactStore) -> set[ArtefactRef]:
    """What is needed for its own sake: of every product champions of any time, what waits for approval, the latest.

    Of champions also what they were made of; and what the ops of running runs handed on.
    """
    found: set[ArtefactRef] = set()
    ledger = store.ledger
    for product in products(ledger):
        for entry in Champion(ledger, product).history():
            if entry.action != "refuse":
                made_of = [ArtefactRef(**ref) for ref in entry.decision.get("made_of", {}).values()]
                compared = _refs(entry.decision.get("comparison"))  # what the decision can be made again from
                found |= {ref for ref in (entry.report, entry.release, *made_of, *compared) if ref is not None}
        for key in ledger.keys(product_key(product, "latest") + "/"):
            found |= set(_refs(read_json(ledger, key)))
    for run in running_runs(store.home_path):
        found |= set(_refs(read_json(ledger, run_key(f"{run}.json"))))
    return found


def running_runs(home: Path) -> dict[str, float]:
    """Dagster's runs on this home that have not ended: when each was created, in seconds since 1970, by id."""
    folder = Path(os.environ.get("DAGSTER_HOME") or home / ".dagster")
    if not folder.is_dir():
        return {}
    with open_instance(folder) as instance:
        records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, *GOING_ON]))
        return {record.dagster_run.run_id: record.create_timestamp.timestamp() for record in records}


def _refs(value: object) -> Iterator[ArtefactRef]:
    """Every artefact that a record names: a pointer, or a plan with its inputs."""
    if isinstance(value, dict):
        if {"kind", "identity", "digest"} <= value.keys():
            yield ArtefactRef(value["kind"], value["identity"], value["digest"])
        else:
            for item in value.values():
                yield from _refs(item)


def find_garbage(store: ArtifactStore, keep_days: float, log: Callable[[str], None] = print) -> list[Garbage]:
    """All that may go, artefacts first; nothing is changed.

    Args:
        store: The home's.
        keep_days: What was made or worked on within so many days is kept in any case.
        log: Is told of artefacts that cannot be read, which are left alone.

    Raises:
        DamagedArtefact: The champion's history or a pointer cannot be read, so what it needs is not known.
    """
    home = store.home_path
    # What a running run has made is pointed to only when its op has ended.
    oldest = min([time.time() - keep_days * DAY_S, *running_runs(home).values()])
    standing = {one.ref: one for one in _standing(store, log)}
    kept = reachable(standing.values(), roots(store))
    artefacts = [
        _artefact(store, ref)
        for ref in sorted(standing.keys() - kept, key=lambda ref: (ref.kind, ref.identity))
        if mtime(store.directory(ref.kind, ref.identity) / MANIFEST) < oldest
    ]
    staying = standing.keys() - {one.ref for one in artefacts}
    found = [
        *(one for kind in ALL_STEPS for one in _unfinished(store, kind, oldest)),
        *(one for kind in ALL_STEPS for one in _leftovers(store, kind, oldest)),
        *(_copies(store, oldest) if store.elsewhere else _pages(store, staying, oldest)),
        *(Garbage("cache", path, size(path)) for root in _caches(store) for path in stale(root)),
    ]
    return [*artefacts, *found]


def collect(store: ArtifactStore, garbage: list[Garbage]) -> list[Garbage]:
    """Remove what `find_garbage` found; what has come to be in use since stays.

    Returns:
        What was removed.
    """
    seen: set[ArtefactRef] | None = None
    kept: set[ArtefactRef] = set()
    removed = []
    for item in garbage:
        with _claimed(item.claim) as held:
            if item.ref is not None and (now := roots(store)) != seen:
                seen, kept = now, reachable(_standing(store, lambda line: None), now)
            if held and item.ref not in kept and _remove(item):
                removed.append(item)
    return removed


def _artefact(store: ArtifactStore, ref: ArtefactRef) -> Garbage:
    path = store.directory(ref.kind, ref.identity)
    along = [path.with_name(f"{path.name}.log")]
    if ref.kind == LORA_ADAPTER.name:
        along.append(store.home_path / "fine-tuning" / path.name)  # its configuration for plain Olive
    return Garbage(
        "artefact", path, size(path, *along), work_dir(store.home_path, ref.kind, ref.identity), ref, tuple(along)
    )


def _unfinished(store: ArtifactStore, kind: str, oldest: float) -> Iterator[Garbage]:
    """Work whose artefact stands, that nobody has gone on with, or that a killed run left half-written."""
    for work in folders(store.home_path / "work" / kind):
        if is_held(claim_path(work)):
            continue
        if (store.directory(kind, work.name) / MANIFEST).exists() or newest(work) < oldest:
            yield Garbage("checkpoints", work, size(work), None if work.name.startswith(_GONE) else work)
        else:
            yield from (
                Garbage("leftover", path, size(path), work) for path in folders(work) if path.name.startswith("staged-")
            )


def _leftovers(store: ArtifactStore, kind: str, oldest: float) -> Iterator[Garbage]:
    """Folders among the artefacts that are none, and logs of artefacts that are gone."""
    folder = store.directory(kind, "")
    for path in folders(folder):
        if path.name.startswith(_GONE):  # of a `phi3 gc` that was killed
            yield Garbage("leftover", path, size(path))
        elif not (path / MANIFEST).exists() and newest(path) < oldest:
            yield Garbage("leftover", path, size(path), work_dir(store.home_path, kind, path.name))
    for path in sorted(folder.glob("*.log")):
        if not path.with_suffix("").exists() and mtime(path) < oldest:
            yield Garbage("log", path, size(path))


def _pages(store: ArtifactStore, staying: Set[ArtefactRef], oldest: float) -> Iterator[Garbage]:
    """Pages of decisions, but for those of promotions, and of refusals whose release stays."""
    for product in products(store.ledger):
        needed = {
            entry.decision.get("page")
            for entry in Champion(store.ledger, product).history()
            if entry.action != "refuse" or entry.release in staying
        }
        for key in store.ledger.keys(product_key(product, "decisions") + "/"):
            path = Path(store.ledger.where(key))
            if path.name not in needed and mtime(path) < oldest:
                yield Garbage("page", path, size(path))


def _copies(store: ArtifactStore, oldest: float) -> Iterator[Garbage]:
    """What was brought here of artefacts that stand elsewhere, beside whole copies."""
    for room in (FETCHING, PEEKED):
        for kind in folders(store.home_path / "model-cache" / room):
            yield from (Garbage("copy", path, size(path)) for path in folders(kind) if newest(path) < oldest)


@contextmanager
def _claimed(work: Path | None) -> Iterator[bool]:
    """Hold an identity as whoever makes it does; False: somebody makes it right now."""
    lock = try_lock(claim_path(work), Holder(making="room (phi3 gc)")) if work is not None else None
    try:
        yield work is None or lock is not None
    finally:
        if lock is not None:
            lock.release()


def _remove(item: Garbage) -> bool:
    """By one rename, so that a reader finds all of it or nothing; True if it was there."""
    if item.what == "cache":
        remove_stale(item.path.parent)
        return not item.path.exists()
    gone = item.path.with_name(f"{_GONE}{uuid4().hex}")
    try:
        item.path.rename(gone)
    except FileNotFoundError:  # another `phi3 gc` was faster
        return False
    for path in (gone, *item.along):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return True


def _standing(store: ArtifactStore, log: Callable[[str], None]) -> Iterator[Standing]:
    for kind in ALL_STEPS:
        for path in folders(store.directory(kind, "")):
            try:
                manifest = read_manifest(path)
            except FileNotFoundError:
                continue
            except DamagedArtefact as error:
                log(f"Left alone: {error}")
                continue
            if path == store.directory(kind, manifest.call.identity):
                yield Standing(manifest.ref, manifest.made_from, manifest.call.inputs)


def _caches(store: ArtifactStore) -> Iterator[Path]:
    """The caches of the steps; that of the pieces is one of caches."""
    yield from (
        path
        for path in (store.cache_path / name for name in (RAW_DATASET.name, FORMATTED_CORPUS.name, SCORES))
        if path.is_dir()
    )
    yield from (path for path in folders(store.cache_path / FORMATTED_CORPUS.name) if not path.name.startswith("."))
