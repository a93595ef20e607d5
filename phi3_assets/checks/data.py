"""Asset checks of the data: one for each complaint that users of other tools have, with the numbers and where to look.

They block where a model trained on the data would be wrong, and warn where a person should look.
"""

from collections.abc import Iterator

import dagster as dg

from phi3_assets.assets.data import formatted_corpus, raw_dataset
from phi3_assets.checks.results import findings, results, shown, specs, warning
from phi3_assets.data.judge.measured import DatasetMetrics
from phi3_assets.data.tokens.measured import CorpusMetrics
from phi3_assets.ops.running import measured
from phi3_assets.ops.tables import counts_table, histogram_table
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore

SURE_ENOUGH = 0.5
"""From this certainty of an encoding on nobody need look."""
MOST_TOLD = 8


def every_row_is_accounted_for(
    store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record
) -> dg.AssetCheckResult:
    """Rows read = rows kept + rows in quarantine, and no more of them are defective than the recipe allows."""
    metrics = measured(store, recipe, raw_dataset, DatasetMetrics)
    return shown(
        findings(store, recipe, raw_dataset)["every_row_is_accounted_for"],
        reasons=counts_table(metrics.quarantined_by_reason, "reason", "rows"),
    )


def tests_come_from_the_data(store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record) -> dg.AssetCheckResult:
    """Some row of the frozen test set is in the present data; else a model would be scored on other questions."""
    return shown(findings(store, recipe, raw_dataset)["tests_come_from_the_data"])


def every_file_is_read(store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record) -> dg.AssetCheckResult:
    """No file is damaged, of a kind that is not read, or a note beside the data."""
    metrics = measured(store, recipe, raw_dataset, DatasetMetrics)
    damaged, others = metrics.files_damaged, metrics.files_not_read
    return warning(
        not damaged and not others,
        f"{len(metrics.files)} files read; {len(damaged)} damaged, {len(others)} that are no data"
        f"{': ' if damaged or others else ''}{', '.join([*damaged, *others][:MOST_TOLD])}.",
        damaged=dg.MetadataValue.json(damaged),
        not_read=dg.MetadataValue.json(others),
    )


def every_file_has_a_known_shape(
    store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record
) -> dg.AssetCheckResult:
    """What the rows of each file look like, and by what they were recognised."""
    files = measured(store, recipe, raw_dataset, DatasetMetrics).files
    shapes = {file["file"]: f"{file['shape']}: {file['shape_reason']}" for file in files}
    unknown = [file["file"] for file in files if not file["shape"]]
    return warning(
        not unknown,
        f"{', '.join(unknown)}: shape not recognised; set dataset_shape or the column names in the recipe."
        if unknown
        else f"The shape of all {len(files)} files is known.",
        shapes=counts_table(shapes, "file", "shape"),
    )


def encodings_are_certain(store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record) -> dg.AssetCheckResult:
    """Which encoding a file has that is not UTF-8 can only be guessed, and a wrong guess is learnt as odd letters."""
    files = measured(store, recipe, raw_dataset, DatasetMetrics).files
    guessed = {
        file["file"]: f"{file['encoding']}, likely to {file['encoding_certainty']:.0%}"
        for file in files
        if file["encoding_certainty"] is not None
    }
    unsure = [
        f"{file['file']} ({file['encoding']})"
        for file in files
        if file["encoding_certainty"] is not None and file["encoding_certainty"] < SURE_ENOUGH
    ]
    return warning(
        not unsure,
        f"The encoding is a guess: {', '.join(unsure)}. If the preview has odd letters, say it with dataset_encoding, "
        "or save the file as UTF-8."
        if unsure
        else f"The encoding of all {len(files)} files is known, or certain by their letters ({len(guessed)}).",
        encodings=counts_table(guessed, "file", "encoding"),
    )


def every_column_is_used(store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record) -> dg.AssetCheckResult:
    """Columns, arrays and sheets that nothing is made of, with the rows in which they say something."""
    files = measured(store, recipe, raw_dataset, DatasetMetrics).files
    unused = {f"{file['file']}: {name}": rows for file in files for name, rows in file["unused"].items()}
    left_out = {
        f"{file['file']}: {name}": ", ".join(columns) for file in files for name, columns in file["left_out"].items()
    }
    told = [f"{name} ({rows} rows)" for name, rows in unused.items()][:MOST_TOLD]
    told += [f"{name}, an array or sheet without rows" for name in left_out][:MOST_TOLD]
    return warning(
        not told,
        f"Nothing is made of {'; '.join(told)}. If that is meant, name the columns in ignore_columns; else put what "
        "matters into the question."
        if told
        else "Every column with something in it is used.",
        unused=counts_table(unused, "column", "rows"),
        left_out=counts_table(left_out, "array or sheet", "columns"),
    )


def questions_are_answered_once(
    store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record
) -> dg.AssetCheckResult:
    """Few rows repeat others, and no question is answered in two ways."""
    metrics = measured(store, recipe, raw_dataset, DatasetMetrics)
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


def no_secrets_or_personal_data(
    store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record
) -> dg.AssetCheckResult:
    """Keys, tokens, card numbers, addresses and the like, by kind; the recipe says what becomes of such rows."""
    metrics = measured(store, recipe, raw_dataset, DatasetMetrics)
    secrets, personal = metrics.rows_with_secrets, metrics.rows_with_personal_data
    return warning(
        secrets == 0 and personal == 0,
        f"{secrets} rows with secrets, {personal} with personal data.",
        kinds=counts_table({**metrics.secrets, **metrics.personal_data}, "kind", "rows"),
    )


def answers_are_learnt_to_the_end(
    store: ArtifactStore, recipe: RecipeResource, formatted_corpus: Record
) -> dg.AssetCheckResult:
    """Every row has learnt tokens, and the end token is among them; else the model never stops."""
    return shown(findings(store, recipe, formatted_corpus)["answers_are_learnt_to_the_end"])


def test_rows_are_not_trained_on(
    store: ArtifactStore, recipe: RecipeResource, formatted_corpus: Record
) -> dg.AssetCheckResult:
    """No question of the test set stands among the training rows; else the scores would be of memory."""
    return shown(findings(store, recipe, formatted_corpus)["test_rows_are_not_trained_on"])


def prompts_are_asked_as_trained(
    store: ArtifactStore, recipe: RecipeResource, formatted_corpus: Record
) -> dg.AssetCheckResult:
    """A prompt alone gives the tokens that it gave in training, so a device asks what the model was taught."""
    return shown(findings(store, recipe, formatted_corpus)["prompts_are_asked_as_trained"])


def rows_fit_the_model(store: ArtifactStore, recipe: RecipeResource, formatted_corpus: Record) -> dg.AssetCheckResult:
    """No row is longer than max_seq_len; what becomes of longer ones is the recipe's over_long."""
    metrics = measured(store, recipe, formatted_corpus, CorpusMetrics)
    return warning(
        metrics.rows_too_long == 0,
        f"{metrics.rows_too_long} rows are longer than max_seq_len, {metrics.rows_truncated} were cut.",
        rows_too_long=metrics.rows_too_long,
        rows_truncated=metrics.rows_truncated,
        length=histogram_table(metrics.length_histogram),
    )


_DATASET_BLOCKS = (every_row_is_accounted_for, tests_come_from_the_data)
_DATASET_TELLS = (
    every_file_is_read,
    every_file_has_a_known_shape,
    encodings_are_certain,
    every_column_is_used,
    questions_are_answered_once,
    no_secrets_or_personal_data,
)
_CORPUS_BLOCKS = (answers_are_learnt_to_the_end, test_rows_are_not_trained_on, prompts_are_asked_as_trained)
_CORPUS_TELLS = (rows_fit_the_model,)


@dg.multi_asset_check(specs=specs(raw_dataset, _DATASET_BLOCKS, _DATASET_TELLS))
def dataset_is_sound(
    store: ArtifactStore, recipe: RecipeResource, raw_dataset: Record
) -> Iterator[dg.AssetCheckResult]:
    """Asks all that is checked of the dataset."""
    yield from results((*_DATASET_BLOCKS, *_DATASET_TELLS), store, recipe, raw_dataset)


@dg.multi_asset_check(specs=specs(formatted_corpus, _CORPUS_BLOCKS, _CORPUS_TELLS))
def corpus_is_sound(
    store: ArtifactStore, recipe: RecipeResource, formatted_corpus: Record
) -> Iterator[dg.AssetCheckResult]:
    """Asks all that is checked of the corpus."""
    yield from results((*_CORPUS_BLOCKS, *_CORPUS_TELLS), store, recipe, formatted_corpus)


ALL = [dataset_is_sound, corpus_is_sound]
