"""Remote data becomes a local folder that follows its source and costs only what changed."""

import json
import os
import time
from pathlib import Path

import fsspec
import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.data.read.remote import fetch_hub_dataset, is_remote, list_remote, localise
from phi3_assets_tests.data.running import Run, write_sample


@pytest.fixture
def memory():
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/data/a.csv", b"Question,Best Answer\nOne?,1\n")
    filesystem.pipe("/data/sub/b.csv", b"Question,Best Answer\nTwo?,2\n")
    filesystem.pipe("/data/_temporary/c.csv", b"x")
    yield filesystem
    filesystem.rm("/data", recursive=True)


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_remote_folder_is_followed(memory, tmp_path: Path) -> None:
    log: list[str] = []
    folder = localise("memory://data", tmp_path, log.append)
    assert set(files(folder)) == {"a.csv", "sub/b.csv"} == set(list_remote("memory://data"))
    before = list_remote("memory://data")
    memory.pipe("/data/a.csv", b"Question,Best Answer\nOne?,!\n")
    memory.rm("/data/sub/b.csv")
    memory.pipe("/data/d.csv", b"x")
    later = localise("memory://data", tmp_path, log.append)
    assert files(later) == {"a.csv": b"Question,Best Answer\nOne?,!\n", "d.csv": b"x"}
    assert set(files(folder)) == {"a.csv", "sub/b.csv"}, "a step that began with it goes on reading it"
    assert list_remote("memory://data")["a.csv"] != before["a.csv"]
    localise("memory://data", tmp_path, log.append)
    assert [line.split(", ")[1] for line in log] == ["2 of them new or changed"] * 2 + ["0 of them new or changed"]


def test_names_that_no_folder_holds_beside_each_other(memory, tmp_path: Path) -> None:
    memory.pipe("/data/e.csv/f.csv", b"x")
    memory.store["/data/e.csv"] = memory.store["/data/a.csv"]
    with pytest.raises(UserError, match=r"'e\.csv/f\.csv' stands below what is a file itself"):
        localise("memory://data", tmp_path)


def test_versions_that_no_run_asks_for_go(memory, tmp_path: Path) -> None:
    first = localise("memory://data", tmp_path)
    memory.pipe("/data/a.csv", b"Question,Best Answer\nOne?,!\n")
    second = localise("memory://data", tmp_path)
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(first, (long_ago, long_ago))
    memory.pipe("/data/a.csv", b"Question,Best Answer\nOne?,?\n")
    third = localise("memory://data", tmp_path)
    assert (first.exists(), second.exists(), third.exists()) == (False, True, True)


@pytest.mark.parametrize("file", ["a.csv", "sub/b.csv", ".mirror.json"])
@pytest.mark.parametrize("content", [b"", b"Question,Best Answer\nOne?,7\n", None])
def test_a_damaged_copy_is_fetched_again(memory, file: str, content: bytes | None, tmp_path: Path) -> None:
    """A file of the right size was taken for what it had been; an odd state file was a traceback."""
    log: list[str] = []
    folder = localise("memory://data", tmp_path, log.append)
    before = files(folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    assert files(localise("memory://data", tmp_path, log.append)) == before
    assert (f"{file} in the cache is damaged and is fetched again" in log) == (file != ".mirror.json")
    localise("memory://data", tmp_path, log.append)
    assert log[-1] == "2 remote files, 0 of them new or changed"


def test_a_hub_dataset_is_fetched_once_and_read(tmp_path: Path) -> None:
    """The real loader of `datasets`, on a local dataset repository: there is no network in tests."""
    repository = tmp_path / "repository"
    repository.mkdir()
    rows = [{"Question": f"Number {i}?", "Best Answer": f"{i}."} for i in range(30)]
    (repository / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    log: list[str] = []
    run = Run(tmp_path / "home")
    for _ in range(2):
        fetch_hub_dataset(str(repository), "0" * 40, run.data, log.append)
    assert log == [f"{repository}: 30 rows train"]
    whole = (run.data / "train.parquet").read_bytes()
    (run.data / "train.parquet").write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
    fetch_hub_dataset(str(repository), "0" * 40, run.data, log.append)
    assert (run.data / "train.parquet").read_bytes() == whole
    assert log[1:] == [f"{repository} in the cache is damaged and is fetched again", log[0]]
    write_sample(run.data, 12)
    assert {entry["file"]: entry["readable_rows"] for entry in run.ingest()["files"]}["train.parquet"] == 30


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("hf:owner/name@main", "40 hex digits of a commit"),
        ("memory://nowhere", "does not exist or holds no data file"),
        ("gs://user:geheim@bucket/x?sig=geheim", "gs://bucket/x needs gcsfs"),
        ("nosuch://x", "cannot be read"),
    ],
)
def test_what_cannot_be_reached_says_why(path: str, said: str, tmp_path: Path) -> None:
    assert is_remote(path)
    with pytest.raises(UserError, match=said) as caught:
        localise(path, tmp_path)
    assert "geheim" not in str(caught.value)
