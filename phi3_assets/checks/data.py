"""Asset checks of the data: one for each complaint that users of other tools have, with the numbers and where to look.

They block where a model trained on the data would be wrong, and warn where a person should look.
"""

from typing import Any

import dagster as dg

from phi3_assets.assets.data import formatted_corpus, raw_dataset
from phi3_assets.data.judge.measured import DatasetMeasured
from phi3_assets.data.tokens.measured import CorpusMeasured
from phi3_assets.ops.planning import Record
from phi3_assets.ops.running import measured
from phi3_assets.ops.show import counts_table, histogram_table
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

WARN = dg.AssetCheckSeverity.WARN


def result(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    """A check that holds the asset back if it is blocking."""
    return dg.AssetCheckResult(passed=bool(passed), description=description, metadata=metadata)


def warning(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    """A check that tells, and holds nothing back."""
    return dg.AssetCheckResult(passed=bool(passed), severity=WARN, description=description, metadata=metadata)


@dg.asset_check(asset=raw_dataset, blocking=True)
def every_row_is_accounted_for(
    store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record
) -> dg.AssetCheckResult:
    """Rows read = rows kept + rows in quarantine, and no more of them are defective than the recipe allows."""
    metrics = measured(store, raw_dataset, DatasetMeasured)
    read, kept, quarantined = metrics.rows_read, metrics.rows_kept, metrics.rows_quarantined
    defective, limit = metrics.defective_share, recipe.load().max_defective_share
    return result(
        read == kept + quarantined and kept > 0 and defective <= limit,
        f"{read} rows read, {kept} kept, {quarantined} in quarantine; {defective:.1%} are defective "
        f"(max_defective_share {limit:.1%}). quarantine.jsonl in the artefact names file, row and reason of each.",
        rows_read=read,
        rows_kept=kept,
        rows_quarantined=quarantined,
        reasons=counts_table(metrics.quarantined_by_reason, "reason", "rows"),
    )


@dg.asset_check(asset=raw_dataset)
def every_file_is_read(store: ArtifactStore, raw_dataset: Record) -> dg.AssetCheckResult:
    """No file is damaged or of a kind that is not read."""
    metrics = measured(store, raw_dataset, DatasetMeasured)
    damaged, others = metrics.files_damaged, metrics.files_not_read
    return warning(
        not damaged and not others,
        f"{len(metrics.files)} files read; {len(damaged)} damaged, {len(others)} of a kind that is not read.",
        damaged=dg.MetadataValue.json(damaged),
        not_read=dg.MetadataValue.json(others),
    )


@dg.asset_check(asset=raw_dataset)
def every_file_has_a_known_shape(store: ArtifactStore, raw_dataset: Record) -> dg.AssetCheckResult:
    """What the rows of each file look like, and by what they were recognised."""
    files = measured(store, raw_dataset, DatasetMeasured).files
    shapes = {file["file"]: f"{file['shape']}: {file['shape_reason']}" for file in files}
    unknown = [file["file"] for file in files if not file["shape"]]
    return warning(
        not unknown,
        f"{', '.join(unknown)}: shape not recognised; set dataset_shape or the column names in the recipe."
        if unknown
        else f"The shape of all {len(files)} files is known.",
        shapes=counts_table(shapes, "file", "shape"),
    )


@dg.asset_check(asset=raw_dataset)
def questions_are_answered_once(store: ArtifactStore, raw_dataset: Record) -> dg.AssetCheckResult:
    """Few rows repeat others, and no question is answered in two ways."""
    metrics = measured(store, raw_dataset, DatasetMeasured)
    exact = metrics.quarantined_by_reason.get("duplicate", 0)
    near, conflicts = metrics.near_duplicate_rows, metrics.conflicting_questions
    leaked = metrics.leaked_rows_removed
    return warning(
        conflicts == 0 and near == 0,
        f"{exact} exact duplicates left out, {near} near duplicates, {conflicts} questions with several answers "
        f"(conflicts.jsonl in the artefact has their places); {leaked} near copies of test rows were taken out of "
        "training (near_duplicates.jsonl).",
        exact_duplicates=exact,
        near_duplicates=near,
        conflicting_questions=conflicts,
        near_copies_of_test_rows=leaked,
    )


@dg.asset_check(asset=raw_dataset)
def no_secrets_or_personal_data(store: ArtifactStore, raw_dataset: Record) -> dg.AssetCheckResult:
    """Keys, tokens, card numbers, addresses and the like, by kind; the recipe says what becomes of such rows."""
    metrics = measured(store, raw_dataset, DatasetMeasured)
    secrets, personal = metrics.rows_with_secrets, metrics.rows_with_personal_data
    return warning(
        secrets == 0 and personal == 0,
        f"{secrets} rows with secrets, {personal} with personal data.",
        kinds=counts_table({**metrics.secrets, **metrics.personal_data}, "kind", "rows"),
    )


@dg.asset_check(asset=formatted_corpus, blocking=True)
def answers_are_learnt_to_the_end(store: ArtifactStore, formatted_corpus: Record) -> dg.AssetCheckResult:
    """Every row has learnt tokens, and the end token is among them; else the model never stops."""
    metrics = measured(store, formatted_corpus, CorpusMeasured)
    masked, endless = metrics.rows_fully_masked, metrics.rows_without_end_token
    doubled, tests = metrics.rows_with_two_begin_tokens, metrics.test_rows_without_end_token
    return result(
        masked == endless == doubled == tests == 0 and metrics.train_rows > 0,
        f"{metrics.train_rows} training rows; {masked} learn nothing, {endless} do not learn the end token, "
        f"{doubled} begin twice; {metrics.supervised_share:.0%} of the tokens are learnt. Of the test answers "
        f"{tests} lack the end token. The end token comes from the chat template or text_template.",
        rows_fully_masked=masked,
        rows_without_end_token=endless,
        rows_with_two_begin_tokens=doubled,
        test_rows_without_end_token=tests,
        supervised_tokens=metrics.supervised_tokens,
    )


@dg.asset_check(asset=formatted_corpus, blocking=True)
def test_rows_are_not_trained_on(store: ArtifactStore, formatted_corpus: Record) -> dg.AssetCheckResult:
    """No question of the test set stands among the training rows; else the scores would be of memory."""
    metrics = measured(store, formatted_corpus, CorpusMeasured)
    return result(
        metrics.train_test_overlap == 0 and metrics.test_rows > 0,
        f"{metrics.test_rows} test rows, {metrics.train_test_overlap} of them also in training.",
        test_rows=metrics.test_rows,
        train_test_overlap=metrics.train_test_overlap,
    )


@dg.asset_check(asset=formatted_corpus, blocking=True)
def prompts_are_asked_as_trained(store: ArtifactStore, formatted_corpus: Record) -> dg.AssetCheckResult:
    """A prompt alone gives the tokens that it gave in training, so a device asks what the model was taught."""
    metrics = measured(store, formatted_corpus, CorpusMeasured)
    otherwise, checked = metrics.prompts_tokenised_otherwise, metrics.prompts_checked
    return result(
        otherwise == 0,
        f"{checked} prompts checked, {otherwise} give other tokens alone than in front of their answer.",
        prompts_checked=checked,
        prompts_tokenised_otherwise=otherwise,
    )


@dg.asset_check(asset=formatted_corpus)
def rows_fit_the_model(store: ArtifactStore, formatted_corpus: Record) -> dg.AssetCheckResult:
    """No row is longer than max_seq_len; what becomes of longer ones is the recipe's over_long."""
    metrics = measured(store, formatted_corpus, CorpusMeasured)
    return warning(
        metrics.rows_too_long == 0,
        f"{metrics.rows_too_long} rows are longer than max_seq_len, {metrics.rows_truncated} were cut.",
        rows_too_long=metrics.rows_too_long,
        rows_truncated=metrics.rows_truncated,
        length=histogram_table(metrics.length_histogram),
    )


ALL = [
    every_row_is_accounted_for,
    every_file_is_read,
    every_file_has_a_known_shape,
    questions_are_answered_once,
    no_secrets_or_personal_data,
    answers_are_learnt_to_the_end,
    test_rows_are_not_trained_on,
    prompts_are_asked_as_trained,
    rows_fit_the_model,
]
