"""`phi3 testset` as a user calls it, on a home with real artefacts."""

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from phi3_assets import steps
from phi3_assets.cli.app import app
from phi3_assets.core.manifest import Manifest, hash_files, seal
from phi3_assets.core.step import StepCall, StepContext
from phi3_assets.data.testset import TEST_SET
from phi3_assets.data.testset import versions as sets
from phi3_assets_tests.conftest import raw_dataset_call, write_rows

PRODUCT = "operations-desk"


def call(*arguments, home, fails=False):
    done = CliRunner().invoke(app, ["testset", *arguments, "--home", str(home)])
    assert bool(done.exit_code) == fails, done.output
    return done.output if not fails else str(done.exception)


@pytest.fixture
def made(home, store, tmp_path):
    """A raw_dataset of a hundred rows, its frozen test set, and an artefact that was made from it."""
    write_rows(home / "datasets" / "codes.csv", rows=100)
    raw, inputs = raw_dataset_call(store)
    staged = store.staging_path(raw)
    staged.mkdir(parents=True)
    paths = {name: item.path for name, item in inputs.items()}
    context = StepContext(raw.params, paths, staged, tmp_path, home / "model-cache" / "downloads")
    metrics = steps.RAW_DATASET.load()(context)
    seal(staged, Manifest(raw, hash_files(staged), metrics, ran={"finished": "2026-01-01"}))
    manifest = store.publish(raw, staged)
    sets.freeze(store.ledger, PRODUCT, store.fetch(manifest.ref) / TEST_SET, raw.identity, None, raw.params)
    corpus = StepCall("formatted_corpus", "1", {}, {"raw_dataset": manifest.digest}, {})
    staged = store.staging_path(corpus)
    staged.mkdir(parents=True)
    seal(staged, Manifest(corpus, {}, {}, made_from={"raw_dataset": manifest.ref}))
    store.publish(corpus, staged)
    return manifest


def test_show_says_what_is_tested_with(home, made):
    tests = made.metrics["test_set_rows"]
    said = call("show", home=home)
    assert f"0001-{made.call.identity[:16]}.parquet  present" in said
    assert f"{tests} rows, {tests} of them in the newest raw_dataset" in said
    assert f"codes.csv ({tests})" in said
    assert "no frozen test set yet" in call("show", "--product", "other", home=home)


def test_retire_needs_a_reason_and_keeps_it(home, made, store):
    call("retire", home=home, fails=True)
    assert "still never trained on" in call("retire", "--reason", "new data", home=home)
    assert "new data" in call("show", home=home)
    assert "no present test set" in call("retire", "--reason", "again", home=home, fails=True)


def test_forget_erases_and_names_what_it_touched(home, made, store):
    """Nobody could say which models a person's rows had gone into, nor take them out of what is frozen."""
    versions = sets.read_versions(store.ledger, PRODUCT)
    snapshot, _ = sets.lay_out(store.ledger, PRODUCT, versions, home / "work" / sets.ROOM)
    question = pq.read_table(snapshot, columns=["messages"])["messages"][0].as_py()[0]["content"]
    said = call("forget", "--match", f"^{question[:-1]}", "--reason", "asked to", home=home)
    assert "rows erased" in said
    assert f"raw_dataset {made.call.identity[:16]}" in said
    assert "formatted_corpus" in said
    assert question[:-1] not in said
    assert not snapshot.exists()
    assert not any(question[:-1].encode() in path.read_bytes() for path in (home / "ledger").rglob("*.parquet"))
    assert "asked to" in call("show", home=home)
    assert "No test set" in call("forget", "--match", "nobody knows", "--reason", "x", home=home)
    assert "--id, --match or --group" in call("forget", "--reason", "x", home=home, fails=True)
