"""Whatever happens to the files of a cache, what is made with its help has the bytes of a home without one.

Flipped bytes in caches once went into artefacts under the right identity in 6 of 10 tries; one model was trained on 1
row of 445.
"""

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.data import records
from phi3_assets.data.cache import DirectoryCache
from phi3_assets.data.judge import part_store
from phi3_assets.data.read.sources import SourceFile
from phi3_assets.steps import ingest
from phi3_assets_tests.data.running import Run, bytes_of, write_model, write_sample


@pytest.fixture(scope="module", autouse=True)
def small_blocks():
    """Blocks of 20 rows, so that a small file has several."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (records, part_store):
            patch.setattr(module, "BLOCK_ROWS", 20)
        yield


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, dict[str, bytes], dict[str, bytes]]:
    """A home whose data has changed since its caches were filled, and what a clean one makes of that data."""
    root = tmp_path_factory.mktemp("homes")
    write_model(root / "model")
    home = Run(root / "home")
    write_sample(home.data, 90)
    lines = (home.data / "sample.jsonl").read_text().splitlines()
    (home.data / "sample.jsonl").write_text("\n".join(lines[:45]))
    (home.data / "edited.jsonl").write_text("\n".join(lines[45:]))
    home.ingest()
    home.corpus(root / "model")
    home.freeze()
    new = json.dumps({"Question": "An entirely new one, is it?", "Best Answer": "So it is."})
    (home.data / "edited.jsonl").write_text("\n".join([new, *lines[45:]]))
    clean = Run(root / "clean")
    for name in ("datasets", "test-sets"):
        shutil.copytree(home.home / name, clean.home / name, dirs_exist_ok=True)
    clean.ingest()
    clean.corpus(root / "model")
    return home, bytes_of(clean.raw), bytes_of(clean.out)


def files_of(cache: Path) -> list[Path]:
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.name != ".lock")


def flip(cache: Path, chance: random.Random) -> None:
    """A byte or a few in every file, the seals among them."""
    for path in files_of(cache):
        content = bytearray(path.read_bytes())
        for _ in range(chance.randint(1, 3) if content else 0):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)


def flip_one(cache: Path, chance: random.Random) -> None:
    path = chance.choice([path for path in files_of(cache) if path.stat().st_size])
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def empty(cache: Path, chance: random.Random) -> None:
    for path in files_of(cache):
        if chance.random() < 0.5:
            path.write_bytes(b"")


def delete(cache: Path, chance: random.Random) -> None:
    for path in files_of(cache):
        if chance.random() < 0.1:
            path.unlink()


def swap(cache: Path, chance: random.Random) -> None:
    """Two entries of each cache take each other's place."""
    for root in {path.parent.parent for path in files_of(cache) if path.name == "sealed.json"}:
        one, other = chance.sample([path for path in sorted(root.iterdir()) if (path / "sealed.json").exists()], 2)
        one.rename(root / "aside")
        other.rename(one)
        (root / "aside").rename(other)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("harm", [flip, flip_one, empty, delete, swap])
def test_damage_never_reaches_an_artefact(homes, harm: Callable, seed: int, tmp_path: Path) -> None:
    home, raw, corpus = homes
    run = Run(tmp_path / "home")
    for name in ("datasets", "test-sets", "cache"):
        shutil.copytree(home.home / name, run.home / name, dirs_exist_ok=True)
    harm(run.home / "cache", random.Random(seed))
    run.ingest()
    run.corpus(home.home.parent / "model")
    assert bytes_of(run.raw) == raw
    assert bytes_of(run.out) == corpus
    if harm in (flip, empty):
        assert any("is damaged (" in line and line.endswith("and is made anew") for line in run.log)


def test_file_saved_while_it_is_read_is_not_kept(tmp_path: Path, monkeypatch) -> None:
    """Its rows would be served whenever the file is again what it was before; the row of an editor's undo."""
    run = Run(tmp_path / "home")
    write_sample(run.data, 30)
    made = ingest.make_part

    def saved_meanwhile(file: SourceFile, *rest: object) -> None:
        file.path.write_text(file.path.read_text() + '{"Question": "New?", "Best Answer": "Yes."}\n')
        made(file, *rest)

    monkeypatch.setattr(ingest, "make_part", saved_meanwhile)
    with pytest.raises(UserError, match=r"sample.jsonl was changed while it was read. Run it again."):
        run.ingest()
    assert list(DirectoryCache(run.home / "cache" / "raw_dataset")) == []


def _use(root: Path, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    cache = DirectoryCache(root, lambda line: None)
    for _ in range(rounds):
        key = str(chance.randrange(3))
        if chance.random() < 0.2 and (root / key / "content").exists():
            with suppress(FileNotFoundError):
                (root / key / "content").write_bytes(b"damage")
        folder = cache.get(key) or cache.put(key, lambda new, key=key: _fill(new, key))
        assert folder == root / key
        cache.prune()


def _fill(folder: Path, key: str) -> None:
    (folder / "content").write_bytes(key.encode() * 50_000)
    (folder / "more").write_bytes(key.encode())


def test_two_runs_at_once_and_kills_leave_whole_entries(tmp_path: Path) -> None:
    """Three processes find, damage, remove and make the same entries; some are killed in the middle of it."""
    context = get_context("fork")
    chance = random.Random(0)
    for seed in range(6):
        workers = [context.Process(target=_use, args=(tmp_path, seed * 3 + i, 60)) for i in range(3)]
        for worker in workers:
            worker.start()
        time.sleep(chance.uniform(0.02, 0.2))
        os.kill(workers[0].pid, signal.SIGKILL)
        for worker in workers[1:]:
            worker.join()
            assert worker.exitcode == 0
        workers[0].join()
    cache = DirectoryCache(tmp_path)
    for key in ("0", "1", "2"):
        folder = cache.get(key) or cache.put(key, lambda new, key=key: _fill(new, key))
        assert (folder / "content").read_bytes() == key.encode() * 50_000
    for path in tmp_path.iterdir():  # what the killed ones left goes a day later
        os.utime(path, (0, 0) if path.name.startswith(".") else None)
    cache.prune()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "0", "1", "2"]
