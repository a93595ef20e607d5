"""What must hold of a formatted_corpus before anything is trained on it: pure rules over its metrics and the recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe


def answers_are_learnt_to_the_end(metrics: Mapping[str, Any], recipe: Recipe) -> Finding:
    """Every row has learnt tokens, and the end token is among them; else the model never stops."""
    masked, endless = metrics["rows_fully_masked"], metrics["rows_without_end_token"]
    doubled, tests = metrics["rows_with_two_begin_tokens"], metrics["test_rows_without_end_token"]
    return Finding(
        "answers_are_learnt_to_the_end",
        masked == endless == doubled == tests == 0 and metrics["train_rows"] > 0,
        f"{metrics['train_rows']} training rows; {masked} learn nothing, {endless} do not learn the end token, "
        f"{doubled} begin twice; {metrics['supervised_share']:.0%} of the tokens are learnt. Of the test answers "
        f"{tests} lack the end token. The end token comes from the chat template or text_template.",
        {
            "rows_fully_masked": masked,
            "rows_without_end_token": endless,
            "rows_with_two_begin_tokens": doubled,
            "test_rows_without_end_token": tests,
            "supervised_tokens": metrics["supervised_tokens"],
        },
    )


def test_rows_are_not_trained_on(metrics: Mapping[str, Any], recipe: Recipe) -> Finding:
    """No question of the test set stands among the training rows; else the scores would be of memory."""
    tests, overlap = metrics["test_rows"], metrics["train_test_overlap"]
    return Finding(
        "test_rows_are_not_trained_on",
        overlap == 0 and tests > 0,
        f"{tests} test rows, {overlap} of them also in training.",
        {"test_rows": tests, "train_test_overlap": overlap},
    )


def prompts_are_asked_as_trained(metrics: Mapping[str, Any], recipe: Recipe) -> Finding:
    """A prompt alone gives the tokens that it gave in training, so a device asks what the model was taught."""
    otherwise, checked = metrics["prompts_tokenised_otherwise"], metrics["prompts_checked"]
    return Finding(
        "prompts_are_asked_as_trained",
        otherwise == 0,
        f"{checked} prompts checked, {otherwise} give other tokens alone than in front of their answer.",
        {"prompts_checked": checked, "prompts_tokenised_otherwise": otherwise},
    )


RULES = (answers_are_learnt_to_the_end, test_rows_are_not_trained_on, prompts_are_asked_as_trained)


def judge_corpus(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """The blocking rules of formatted_corpus."""
    return [rule(metrics, recipe) for rule in RULES]
