"""The whole graph on the tiny model, as a user runs it: made once, reused, changed, failed and gone on with."""

import json
import re
import sqlite3
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import dagster as dg
import pytest

from phi3_assets import steps
from phi3_assets.core.manifest import read_manifest
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.pointers import latest
from phi3_assets_tests.conftest import CANARY_QUESTION, CANARY_SECRET, clean_env, write_rows
from phi3_assets_tests.tiny_graph import PHI3, TINY


@pytest.fixture
def events(made_home):
    """The Dagster instance of `made_home`."""
    with dg.DagsterInstance.from_config(str(made_home / ".dagster")) as instance:
        yield instance


def materialisation(instance, name) -> dg.AssetMaterialization:
    return instance.get_latest_materialization_event(dg.AssetKey(name)).asset_materialization


def pointers(home: Path) -> dict[str, dict[str, str]]:
    """Latest artefact of each asset."""
    return {name: asdict(latest(LocalLedger(home / "ledger"), "operations-desk", name)) for name in steps.STEPS}


def test_ends_with_the_scores_and_where_to_read_on(made_home):
    lines = (made_home / "run.log").read_text().splitlines()
    assert lines[-1] == "Champion of operations-desk: this release"
    table = "\n".join(lines[-12:])
    assert re.search(r"base .*\n.*adapter.*\nmerged.*\nint4", table)
    report = next(line for line in lines if line.startswith("Report:")).split()[-1]
    assert Path(report).read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("name", steps.STEPS)
def test_every_asset_shows_what_it_is(events, made_home, name):
    shown = materialisation(events, name)
    ref = pointers(made_home)[name]
    assert shown.metadata["identity"].value == ref["identity"][:16]
    assert Path(shown.metadata["path"].value).is_dir()
    assert shown.tags["dagster/data_version"] == ref["digest"]
    assert shown.tags["dagster/code_version"] == steps.STEPS[name].code_version


def test_data_versions_follow_the_lineage(events, made_home):
    """From an adapter's event alone one can tell which corpus trained it."""
    tags = materialisation(events, "lora_adapter").tags
    assert tags["dagster/input_data_version/formatted_corpus"] == pointers(made_home)["formatted_corpus"]["digest"]
    assert tags["dagster/input_data_version/base_model"] == pointers(made_home)["base_model"]["digest"]


def test_pictures_and_tables_are_in_the_ui(events):
    curve = materialisation(events, "lora_adapter").metadata["Loss curve"].value
    assert curve.startswith("![training loss](data:image/svg+xml,<svg")
    report = materialisation(events, "eval_report").metadata
    assert [record.data["Variant"] for record in report["Comparison"].records][0] == "int4"
    assert len(materialisation(events, "raw_dataset").metadata["Preview"].records) == 5


def test_a_run_from_a_terminal_is_in_the_timeline(events):
    """Dagster's first page said "No runs" after `make run`: it shows those alone that say whose job they are of."""
    (run,) = events.get_runs()
    origin = run.remote_job_origin.repository_origin
    assert origin.repository_name == "__repository__"
    assert origin.code_location_origin.location_name == "phi3_assets"
    assert run.job_name == "retrain"
    assert run.status == dg.DagsterRunStatus.SUCCESS
    assert run.tags["phi3/started_by"] == "phi3 run"


def test_scores_are_plotted_over_retrains(events):
    """Plots of eval_report showed items and seconds, and none of the scores."""
    report = materialisation(events, "eval_report").metadata
    for title in ("NLL, nats/token", "Exact match, %", "Speed, tokens/s", "Size, MB"):
        for variant in ("base", "adapter", "merged", "int4"):
            assert isinstance(report[f"{title}: {variant}"], dg.FloatMetadataValue)


def test_what_is_opened_first_stands_open(events):
    """Everything worth seeing was behind "[Show Markdown]": the UI draws what is shorter than 1,000 characters."""
    for name in steps.STEPS:
        shown = materialisation(events, name).metadata
        for key, value in shown.items():
            if key[0].isupper() and isinstance(value, dg.MarkdownMetadataValue) and not key.endswith(", whole"):
                assert len(value.value) < 1000, (name, key)


def test_training_was_observed_while_it_ran(events):
    records = events.fetch_observations(dg.AssetKey("lora_adapter"), limit=100).records
    numbers = records[-1].asset_observation.metadata
    assert {"Progress, %", "Loss, nats/token", "tokens_per_s"} <= numbers.keys()


def test_log_beside_the_adapter_tells_the_training(made_home, events):
    """A line every logging_steps steps, which would flood the event log, and no progress bars."""
    (log,) = (made_home / "gen-model" / "lora_adapter").glob("*.log")
    lines = log.read_text()
    history = json.loads((log.with_suffix("") / "history.json").read_text())
    told = re.findall(r"^step (\d+)/\d+ epoch \S+ loss \S+ learning_rate \S+ grad_norm \S+ tokens_per_s", lines, re.M)
    assert [int(step) for step in told] == [point["step"] for point in history]
    assert "\r" not in lines
    assert "it/s" not in lines
    assert "Dry run of the largest batch" in lines
    metadata = materialisation(events, "lora_adapter").metadata
    assert metadata["estimated_memory_bytes"].value > 0


def test_second_run_reuses_everything_and_never_imports_torch(copied_home):
    before = pointers(copied_home)
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *PHI3[1:], "run", *TINY, "--home", str(copied_home)],
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("It stands already; nothing is run.") == len(steps.STEPS)
    assert "runs in process" not in done.stdout
    imported = {line.split("|")[-1].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "dagster" in imported
    assert not imported & {"torch", "transformers", "olive", "azure", "onnxruntime"}
    assert pointers(copied_home) == before
    assert seconds < 15


def test_changed_row_remakes_all_that_depends_on_it(copied_home, phi3_here):
    before = pointers(copied_home)
    data = copied_home / "datasets" / "codes.csv"
    original = data.read_bytes()
    data.write_bytes(original.replace(b"Code 7 means ok.", b"Code 7 means wait."))
    said = phi3_here("run", *TINY, home=copied_home)
    after = pointers(copied_home)
    assert after["base_model"] == before["base_model"]
    for name in steps.STEPS.keys() - {"base_model"}:
        assert after[name]["identity"] != before[name]["identity"], name
    assert "Made anew because of input formatted_corpus." in said
    # and back: the first data version's artefacts still stand
    data.write_bytes(original)
    assert "runs in process" not in phi3_here("run", *TINY, home=copied_home)
    assert pointers(copied_home) == before


def test_changed_parameter_says_which(copied_home, phi3_here):
    before = pointers(copied_home)
    said = phi3_here("run", *TINY, "--set", "int4_block_size=16", home=copied_home)
    assert "Made anew because of recipe int4_block_size (32 to 16)." in said
    changed = {name for name, ref in pointers(copied_home).items() if ref != before[name]}
    assert changed == {"onnx_int4_model", "eval_report", "release_bundle"}


def test_failure_keeps_what_was_made_and_goes_on_from_there(copied_home, phi3_here):
    """A learning rate that blows up is refused; with a better one nothing before the training is made again."""
    said = phi3_here("run", *TINY, "--set", "learning_rate=1.0e+30", home=copied_home, fails=True)
    assert "FAILED at lora_adapter.run_lora_pass: lora_adapter: " in said
    assert "learning_rate" in said
    assert list((copied_home / "work").glob("*/*/staged-*")) == []
    assert "runs in process" not in phi3_here("run", *TINY, home=copied_home)


def retrain_job() -> dg.JobDefinition:
    from phi3_assets.definitions import build_defs

    return build_defs().resolve_job_def("retrain")


def test_reexecution_from_failure_resumes_at_the_failed_op(copied_home, shared_execution, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", str(copied_home))
    config = {"resources": {"recipe": {"config": {"recipe": "tiny-test", "learning_rate": 1e30}}}}
    job = dg.reconstructable(retrain_job)
    with dg.DagsterInstance.from_config(str(copied_home / ".dagster")) as instance:
        first = dg.execute_job(job, instance, run_config=config)
        assert not first.success
        options = dg.ReexecutionOptions.from_failure(first.run_id, instance)
        second = dg.execute_job(job, instance, run_config=config, reexecution_options=options)
        run = {event.step_key for event in second.all_events if event.is_step_start}
    assert "lora_adapter.run_lora_pass" in run
    assert not run & {"lora_adapter.plan_lora_adapter", "raw_dataset", "formatted_corpus", "base_model.plan_base_model"}


def test_secret_and_user_text_are_not_where_they_do_not_belong(made_home):
    """A token may be nowhere; a user's rows only in artefacts and in what the UI is asked to show of them."""
    for path in made_home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert CANARY_SECRET.encode() not in data, path
            if path.suffix == ".log":
                assert CANARY_QUESTION.encode() not in data, path
    for database in (made_home / ".dagster").rglob("*.db"):
        with sqlite3.connect(database) as connection:
            assert not any(CANARY_SECRET in line for line in connection.iterdump()), database


def test_manifests_hold_no_absolute_path(made_home):
    for path in made_home.rglob("manifest.json"):
        assert str(made_home) not in path.read_text(), path
        manifest = read_manifest(path.parent)
        for name in manifest.files:
            if not name.endswith((".safetensors", ".data", ".onnx", ".parquet", ".png")):
                assert str(made_home.parent) not in (path.parent / name).read_text(errors="replace"), f"{path} {name}"


def test_rows_of_the_frozen_test_set_stay_out_of_training(copied_home, phi3_here):
    """New rows come, the test set stays as it was frozen; and a home that did not change is not made anew for it."""
    (frozen,) = (copied_home / "ledger" / "products" / "operations-desk" / "test_sets").glob("*.parquet")
    content = frozen.read_bytes()
    write_rows(copied_home / "datasets" / "more.csv", rows=60)
    phi3_here("run", *TINY, home=copied_home)
    assert [path.read_bytes() for path in frozen.parent.glob("*.parquet")] == [content]
    ref = pointers(copied_home)["raw_dataset"]
    call = read_manifest(copied_home / "fine-tuning" / "raw_dataset" / ref["identity"][:16]).call
    assert "test_sets" in call.inputs
