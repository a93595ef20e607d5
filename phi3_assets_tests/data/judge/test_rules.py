"""The rules that block: each on metrics that seed its fault, and the sample's test set on a user's own data."""

import json
from pathlib import Path

import pytest

from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.data.judge import rules
from phi3_assets.data.tokens import rules as token_rules
from phi3_assets_tests.data.running import Run, write_sample

RECIPE = load_recipe("tiny-test")
ROWS = {"rows_read": 10, "rows_kept": 9, "rows_quarantined": 1, "defective_share": 0.1, "files": []}
CORPUS = {
    "rows_fully_masked": 0,
    "rows_without_end_token": 0,
    "rows_with_two_begin_tokens": 0,
    "test_rows_without_end_token": 0,
    "train_rows": 3,
    "supervised_share": 0.5,
    "supervised_tokens": 9,
    "test_rows": 2,
    "train_test_overlap": 0,
    "prompts_checked": 2,
    "prompts_tokenised_otherwise": 0,
}


@pytest.mark.parametrize("fault", [{}, {"rows_kept": 8}, {"rows_kept": 0, "rows_quarantined": 10}, {"rows_read": 11}])
def test_rows_are_accounted_for(fault):
    assert rules.every_row_is_accounted_for(ROWS | fault, RECIPE).passed is (not fault)
    strict = RECIPE.model_copy(update={"max_defective_share": 0.05})
    assert not rules.every_row_is_accounted_for(ROWS | fault, strict).passed


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (token_rules.answers_are_learnt_to_the_end, "rows_fully_masked"),
        (token_rules.answers_are_learnt_to_the_end, "rows_without_end_token"),
        (token_rules.answers_are_learnt_to_the_end, "rows_with_two_begin_tokens"),
        (token_rules.answers_are_learnt_to_the_end, "test_rows_without_end_token"),
        (token_rules.test_rows_are_not_trained_on, "train_test_overlap"),
        (token_rules.prompts_are_asked_as_trained, "prompts_tokenised_otherwise"),
    ],
)
def test_one_bad_row_of_a_corpus_is_enough(rule, fault):
    assert rule(CORPUS, RECIPE).passed
    found = rule(CORPUS | {fault: 1}, RECIPE)
    assert not found.passed
    assert " 1 " in found.sentence
    assert rule.__name__ == found.rule


def test_a_corpus_without_rows_does_not_pass():
    assert not token_rules.answers_are_learnt_to_the_end(CORPUS | {"train_rows": 0}, RECIPE).passed
    assert not token_rules.test_rows_are_not_trained_on(CORPUS | {"test_rows": 0}, RECIPE).passed


def test_own_data_is_not_judged_by_the_samples_questions(tmp_path: Path) -> None:
    """The sample was replaced by a user's files, and all variants were scored on 66 questions of the sample: passed."""
    run = Run(tmp_path)
    write_sample(run.data, 90)
    assert rules.tests_come_from_the_data(run.ingest(), RECIPE).passed
    run.freeze()
    assert rules.tests_come_from_the_data(run.ingest(), RECIPE).passed
    (run.data / "sample.jsonl").unlink()
    own = [{"Question": f"Which room is number {i} in?", "Best Answer": f"Floor {i}."} for i in range(40)]
    (run.data / "own.jsonl").write_text("\n".join(map(json.dumps, own)))
    metrics = run.ingest()
    assert metrics["train_rows"] > 20
    found = rules.tests_come_from_the_data(metrics, RECIPE)
    assert not found.passed
    assert "product: my-desk" in found.sentence
    assert "phi3 testset retire --product operations-desk --reason" in found.sentence
