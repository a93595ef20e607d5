"""Metrics travel from step to check to UI under one set of names, which three modules had to agree on by hand."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from phi3_assets.checks import data as checks
from phi3_assets.core.errors import UserError
from phi3_assets.data.judge.measured import DatasetMetrics
from phi3_assets.data.tokens.measured import CorpusMetrics
from phi3_assets.evaluation.measured import EvaluationMetrics
from phi3_assets.steps import STEPS
from phi3_assets_tests.data.running import Run, write_model, write_sample

RECORDS = {"raw_dataset": DatasetMetrics, "formatted_corpus": CorpusMetrics, "eval_report": EvaluationMetrics}


@pytest.mark.parametrize("name", RECORDS)
def test_what_the_ui_shows_is_measured(name):
    names = {one.name for one in dataclasses.fields(RECORDS[name])}
    shown = {one.metric for one in STEPS[name].shows if one.metric}
    assert shown | ({STEPS[name].row_count} - {""}) <= names


@pytest.mark.parametrize("record", RECORDS.values())
def test_every_measure_is_explained(record):
    explained = "".join(one.__doc__ or "" for one in record.__mro__)
    for one in dataclasses.fields(record):
        assert f"        {one.name}: " in explained


def test_what_the_data_steps_return_is_their_record(tmp_path):
    """Through JSON, as the manifest has it."""
    run = Run(tmp_path / "home")
    write_sample(run.data)
    for record, metrics in (
        (DatasetMetrics, run.ingest()),
        (CorpusMetrics, run.corpus(write_model(tmp_path / "model"))),
    ):
        read = json.loads(json.dumps(metrics))
        assert record.from_dict(read).to_dict() == read == metrics


def test_another_versions_manifest_is_named_not_a_key_error():
    metrics = {one.name: 0 for one in dataclasses.fields(EvaluationMetrics)}
    assert EvaluationMetrics.from_dict({**metrics, "new": 1}).to_dict() == metrics
    del metrics["test_set"]
    with pytest.raises(UserError, match="has no test_set: another version.*Materialise the asset again"):
        EvaluationMetrics.from_dict(metrics)


def test_checks_read_no_metric_by_its_text():
    tree = ast.parse(Path(checks.__file__).read_text())
    keys = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "metrics"
    ]
    assert keys == []
