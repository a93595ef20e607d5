"""Only what is new is read and tokenised, and the result is what a run without a cache would have made."""

import json
import shutil
from pathlib import Path

import pytest

from phi3_assets.data import records
from phi3_assets.data.cache import DirectoryCache
from phi3_assets.data.judge import part_store
from phi3_assets.data.tokens import items
from phi3_assets_tests.data.running import Run, bytes_of, write_model, write_sample


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> Run:
    # Blocks of 20 rows, so that a small file has several.
    for module in (records, part_store):
        monkeypatch.setattr(module, "BLOCK_ROWS", 20)
    run = Run(tmp_path / "home")
    write_sample(run.data, 90)
    write_model(tmp_path / "model")
    run.ingest()
    run.corpus(tmp_path / "model")
    run.freeze()
    return run


def afresh(run: Run) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The output of both steps with an empty cache."""
    other = Run(run.home.parent / "afresh", **run.overrides)
    for name in ("datasets", "test-sets"):
        shutil.copytree(run.home / name, other.home / name, dirs_exist_ok=True)
    other.ingest()
    other.corpus(run.home.parent / "model")
    return bytes_of(other.raw), bytes_of(other.out)


def test_a_new_file_costs_its_own_rows(run: Run) -> None:
    rows = [{"Question": f"What is item {i}00 good for?", "Best Answer": f"For task {i}."} for i in range(20)]
    (run.data / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    metrics = run.ingest()
    assert (metrics["files_read"], metrics["files_reused"]) == (1, 1)
    corpus = run.corpus(run.home.parent / "model")
    assert corpus["rows_tokenised"] == sum(
        record["split"] == "train" for record in run.records() if record["file"] == "new.jsonl"
    )
    assert corpus["rows_reused"] > 60
    assert (bytes_of(run.raw), bytes_of(run.out)) == afresh(run)


def test_an_edited_row_costs_one_row(run: Run) -> None:
    """A row put in at the top of a file shifts all others; they are known by content."""
    file = run.data / "sample.jsonl"
    new = json.dumps({"Question": "An entirely new one, is it?", "Best Answer": "So it is."})
    file.write_text(new + "\n" + file.read_text())
    metrics = run.ingest()
    assert metrics["files_read"] == 1
    assert run.corpus(run.home.parent / "model")["rows_tokenised"] == 1
    assert (bytes_of(run.raw), bytes_of(run.out)) == afresh(run)


@pytest.mark.parametrize(
    ("field", "value", "read"),
    [("max_seq_len", 256, 0), ("system_prompt", "Hm.", 0), ("secrets", "report", 1), ("conflicts", "quarantine", 0)],
)
def test_a_changed_field_makes_new_what_depends_on_it(run: Run, field: str, value: object, read: int) -> None:
    run.overrides[field] = value
    assert run.ingest()["files_read"] == read
    metrics = run.corpus(run.home.parent / "model")
    assert (metrics["rows_tokenised"] > 0) == (field in ("max_seq_len", "system_prompt"))
    assert (bytes_of(run.raw), bytes_of(run.out)) == afresh(run)


def test_a_cache_entry_that_lost_bytes_is_made_again(run: Run) -> None:
    for file in [*run.home.glob("cache/raw_dataset/*/000000.parquet"), *run.home.glob("cache/*/*/*/train.parquet")]:
        file.write_bytes(file.read_bytes()[:-1])
    assert run.ingest()["files_read"] == 1
    run.corpus(run.home.parent / "model")
    assert (bytes_of(run.raw), bytes_of(run.out)) == afresh(run)


def test_a_failed_entry_leaves_nothing(tmp_path: Path) -> None:
    cache = DirectoryCache(tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        cache.put("key", fail)
    assert cache.get("key") is None
    assert list(tmp_path.iterdir()) == []


def test_pages_do_not_tell_how_the_result_was_made(tmp_path: Path) -> None:
    """Once a corpus of many pages had other bytes when it came from the cache, and all downstream was made anew."""
    run = Run(tmp_path / "home")
    model = write_model(tmp_path / "model")
    rows = [json.dumps({"Question": f"What of {i * 7919}?", "Best Answer": f"It is {i}."}) for i in range(9000)]
    (run.data / "rows.jsonl").write_text("\n".join(rows[1:]))
    run.ingest()
    run.corpus(model)
    (run.data / "rows.jsonl").write_text("\n".join(rows))
    run.ingest()
    assert run.corpus(model)["rows_tokenised"] <= 1
    assert (bytes_of(run.raw), bytes_of(run.out)) == afresh(run)
    before = bytes_of(run.raw), bytes_of(run.out)
    run.freeze()
    run.ingest()
    run.corpus(model)
    assert (bytes_of(run.raw), bytes_of(run.out)) == before


def test_a_test_set_that_grows_costs_its_new_rows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A per cent of new rows had all tests tokenised again: 7.6 s of a run that took 2.5 s otherwise."""
    monkeypatch.setattr(items, "_PART_ROWS", 4)
    run.overrides["test_set"] = "grow"
    model = run.home.parent / "model"
    rows_before = run.ingest()["test_set_rows"]
    run.corpus(model)
    before = set(run.home.glob("cache/formatted_corpus/*/tests-*"))
    rows = [{"Question": f"What is item {i}00 good for?", "Best Answer": f"For task {i}."} for i in range(30)]
    (run.data / "new.jsonl").write_text("\n".join(map(json.dumps, rows)))
    rows_after = run.ingest()["test_set_rows"]
    run.corpus(model)
    made = set(run.home.glob("cache/formatted_corpus/*/tests-*")) - before
    assert rows_before >= 8
    assert len(made) == -(-rows_after // 4) - rows_before // 4
    assert (bytes_of(run.raw), bytes_of(run.out)) == afresh(run)
