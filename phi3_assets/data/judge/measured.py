"""What raw_dataset measures. No text of the user's but the preview rows."""

from dataclasses import dataclass
from typing import Any

from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class DatasetMetrics(Metrics):
    """Every row read is kept or in quarantine.

    Attributes:
        rows_read: Rows of all files.
        rows_kept: Rows that are trained on, tested with or held out.
        rows_quarantined: The others.
        quarantined_by_reason: Of those, rows by reason code.
        defective_share: Share of `rows_read` in quarantine, repeats aside; 0 to 1.
        train_rows: Kept rows on the training side.
        test_rows: Kept rows on the test side.
        held_out_rows: Kept rows that wait until the test set may grow.
        test_set_rows: Rows of the frozen test set, or of the one proposed.
        test_rows_in_data: Rows of the frozen test set that are in the data.
        test_set_versions: Names of the frozen test sets, oldest first.
        test_set_is_new: Whether `test_set_rows` are not frozen yet.
        test_rows_withheld: Frozen test rows that the recipe's policies take out of the test set.
        test_rows_withheld_by_reason: Of those, rows by reason code.
        leaked_rows_removed: Near copies of test rows, taken out of training.
        near_duplicate_rows: Rows almost equal to another on the same side.
        conflicting_questions: Questions that are answered in several ways.
        conflicting_rows: Rows of those questions.
        rows_with_personal_data: Rows with any.
        personal_data: Rows by kind of it.
        rows_with_secrets: Rows with any.
        secrets: Rows by kind of them.
        files: For each file: file, format, compression, encoding and how certain that is, delimiter, quotes,
            header_line, sections (arrays or sheets), left_out (those without rows), shape, shape_reason, columns,
            unused (rows by column that nothing is made of), quarantined (rows by reason), met (what was met, by
            reason), rows, readable_rows, problem, sha256.
        files_damaged: Names of files that could be read only in part.
        files_not_read: Names of files of a kind that is not read.
        named_splits: Rows of each side that files or arrays name (train, validation, test); empty: none is named so.
        files_read: Files that were read in this run.
        files_reused: Files whose rows were known from an earlier run.
        preview: The first rows, with the file of each.
    """

    rows_read: int
    rows_kept: int
    rows_quarantined: int
    quarantined_by_reason: dict[str, int]
    defective_share: float
    train_rows: int
    test_rows: int
    held_out_rows: int
    test_set_rows: int
    test_rows_in_data: int
    test_set_versions: list[str]
    test_set_is_new: bool
    test_rows_withheld: int
    test_rows_withheld_by_reason: dict[str, int]
    leaked_rows_removed: int
    near_duplicate_rows: int
    conflicting_questions: int
    conflicting_rows: int
    rows_with_personal_data: int
    personal_data: dict[str, int]
    rows_with_secrets: int
    secrets: dict[str, int]
    files: list[dict[str, Any]]
    files_damaged: list[str]
    preview: list[dict[str, Any]]
    files_read: int
    files_reused: int
    files_not_read: list[str]
    named_splits: dict[str, int]
