"""What a home holds that nothing needs any more, and removing it beside runs that go on.

Kept is what a champion of any time, the latest artefact of each kind or a running run is, and all that they were made
of; what another process makes right now; and whatever is younger than some days. What is to go is decided first and
shown; it is removed one by one, each looked at again under its claim, so a run that started meanwhile loses nothing
that it has taken up. A run that had planned with an artefact an instant before it went makes it anew, or says that it
is gone.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
import filelock

from phi3_assets.core.errors import DamagedArtefact
from phi3_assets.core.home import artefact_dir, claim_path, work_dir
from phi3_assets.core.manifest import MANIFEST, ArtefactRef, read_manifest
from phi3_assets.core.reachable import Standing, reachable
from phi3_assets.data.cache import remove_stale, stale
from phi3_assets.release import champion
from phi3_assets.resources.disk import folders, mtime, newest, size
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.steps import LORA_ADAPTER, STEPS

DAY_S = 24 * 3600
_GONE = ".gone-"
_GOING_ON = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dataclass(frozen=True)
class Garbage:
    """Something that may go.

    Attributes:
        what: "artefact", "checkpoints", "leftover", "log", "page", "pointers" or "cache".
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


def roots(store: LocalArtifactStore) -> set[ArtefactRef]:
    """What is needed for its own sake: champions of any time with what they were made of, the latest, running runs."""
    found: set[ArtefactRef] = set()
    for entry in champion.history(store.home_path):
        if entry.action != "refuse":
            made_of = [ArtefactRef(**ref) for ref in entry.decision.get("made_of", {}).values()]
            found |= {entry.report, *made_of, *([entry.release] if entry.release else [])}
    pointers = store.home_path / "gen-model" / ".pointers"
    needed = [pointers / "latest", *(pointers / "runs" / run for run in running_runs(store.home_path))]
    for path in [path for folder in needed for path in folder.rglob("*.json")]:
        try:
            found |= set(_refs(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError:
            raise DamagedArtefact(
                f"{path} is damaged, so what it needs is not known. Materialise {path.stem} again, or delete the file."
            ) from None
    return found


def running_runs(home: Path) -> dict[str, float]:
    """Dagster's runs on this home that have not ended: when each was created, in seconds since 1970, by id."""
    folder = Path(os.environ.get("DAGSTER_HOME") or home / ".dagster")
    if not folder.is_dir():
        return {}
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        records = instance.get_run_records(dg.RunsFilter(statuses=_GOING_ON))
        return {record.dagster_run.run_id: record.create_timestamp.timestamp() for record in records}


def _refs(value: object) -> Iterator[ArtefactRef]:
    """Every artefact that a record names: a pointer, or a plan with its inputs."""
    if isinstance(value, dict):
        if {"kind", "identity", "digest"} <= value.keys():
            yield ArtefactRef(value["kind"], value["identity"], value["digest"])
        else:
            for item in value.values():
                yield from _refs(item)


def find_garbage(store: LocalArtifactStore, keep_days: float, log: Callable[[str], None] = print) -> list[Garbage]:
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
    standing = {one.ref: one for one in _standing(home, log)}
    kept = reachable(standing.values(), roots(store))
    artefacts = [
        _artefact(home, ref)
        for ref in sorted(standing.keys() - kept, key=lambda ref: (ref.kind, ref.identity))
        if mtime(artefact_dir(home, ref.kind, ref.identity) / MANIFEST) < oldest
    ]
    staying = standing.keys() - {one.ref for one in artefacts}
    found = [
        *(one for kind in STEPS for one in _unfinished(home, kind, oldest)),
        *(one for kind in STEPS for one in _leftovers(home, kind, oldest)),
        *_pages(home, staying, oldest),
        *_old_pointers(home, oldest),
        *(Garbage("cache", path, size(path)) for root in _caches(store) for path in stale(root)),
    ]
    return [*artefacts, *found]


def collect(store: LocalArtifactStore, garbage: list[Garbage]) -> list[Garbage]:
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
                seen, kept = now, reachable(_standing(store.home_path, lambda line: None), now)
            if held and item.ref not in kept and _remove(item):
                removed.append(item)
    return removed


def _artefact(home: Path, ref: ArtefactRef) -> Garbage:
    path = artefact_dir(home, ref.kind, ref.identity)
    along = [path.with_name(f"{path.name}.log")]
    if ref.kind == LORA_ADAPTER.name:
        along.append(home / "fine-tuning" / path.name)  # its configuration for plain Olive
    return Garbage("artefact", path, size(path, *along), work_dir(home, ref.kind, ref.identity), ref, tuple(along))


def _unfinished(home: Path, kind: str, oldest: float) -> Iterator[Garbage]:
    """Work whose artefact stands, that nobody has gone on with, or that a killed run left half-written."""
    for work in folders(home / "work" / kind):
        if _in_use(work):
            continue
        if (artefact_dir(home, kind, work.name) / MANIFEST).exists() or newest(work) < oldest:
            yield Garbage("checkpoints", work, size(work), None if work.name.startswith(_GONE) else work)
        else:
            yield from (
                Garbage("leftover", path, size(path), work) for path in folders(work) if path.name.startswith("staged-")
            )


def _leftovers(home: Path, kind: str, oldest: float) -> Iterator[Garbage]:
    """Folders among the artefacts that are none, and logs of artefacts that are gone."""
    folder = artefact_dir(home, kind, "")
    for path in folders(folder):
        if path.name.startswith(_GONE):  # of a `phi3 gc` that was killed
            yield Garbage("leftover", path, size(path))
        elif not (path / MANIFEST).exists() and newest(path) < oldest:
            yield Garbage("leftover", path, size(path), work_dir(home, kind, path.name))
    for path in sorted(folder.glob("*.log")):
        if not path.with_suffix("").exists() and mtime(path) < oldest:
            yield Garbage("log", path, size(path))


def _pages(home: Path, staying: Set[ArtefactRef], oldest: float) -> Iterator[Garbage]:
    """Pages of decisions, but for those of promotions, and of refusals whose release stays."""
    needed = {
        entry.decision.get("page")
        for entry in champion.history(home)
        if entry.action != "refuse" or entry.release in staying
    }
    for path in sorted(champion.champion_path(home).with_name("decisions").glob("*.html")):
        if path.name not in needed and mtime(path) < oldest:
            yield Garbage("page", path, size(path))


def _old_pointers(home: Path, oldest: float) -> Iterator[Garbage]:
    """What the ops of runs that have ended handed to one another; a run that failed is gone on with from them."""
    running = running_runs(home)
    for path in folders(home / "gen-model" / ".pointers" / "runs"):
        if path.name not in running and newest(path) < oldest:
            yield Garbage("pointers", path, size(path))


@contextmanager
def _claimed(work: Path | None) -> Iterator[bool]:
    """Hold an identity as whoever makes it does; False: somebody makes it right now."""
    if work is None:
        yield True
        return
    work.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(claim_path(work))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _in_use(work: Path) -> bool:
    if not claim_path(work).exists():
        return False
    with _claimed(work) as held:
        return not held


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


def _standing(home: Path, log: Callable[[str], None]) -> Iterator[Standing]:
    for kind in STEPS:
        for path in folders(artefact_dir(home, kind, "")):
            try:
                manifest = read_manifest(path)
                made_from = json.loads((path / MANIFEST).read_text(encoding="utf-8")).get("made_from", {})
            except FileNotFoundError:
                continue
            except DamagedArtefact as error:
                log(f"Left alone: {error}")
                continue
            if path == artefact_dir(home, kind, manifest.call.identity):
                refs = {name: ArtefactRef(**ref) for name, ref in made_from.items()}
                yield Standing(manifest.ref, refs, manifest.call.inputs)


def _caches(store: LocalArtifactStore) -> Iterator[Path]:
    """The caches of the data steps; that of the pieces is one of caches."""
    yield from (
        path for path in (store.cache_path / name for name in ("raw_dataset", "formatted_corpus")) if path.is_dir()
    )
    yield from (path for path in folders(store.cache_path / "formatted_corpus") if not path.name.startswith("."))
