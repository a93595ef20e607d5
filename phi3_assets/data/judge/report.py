"""The numbers of raw_dataset: what its checks judge and the UI shows. No text of the user's but the preview rows."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError, nearest
from phi3_assets.data.judge.frozen_rows import FrozenRows
from phi3_assets.data.judge.measured import DatasetMetrics
from phi3_assets.data.judge.merge import HELD_OUT, KEPT, LEAK, TEST, TRAIN, Verdict
from phi3_assets.data.judge.ways_out import why_left_out

_PREVIEW_ROWS = 5
_NO_DEFECTS = ("duplicate", "near_duplicate", "near_duplicate_of_test", "rejected_answer")
"""Reasons that say nothing bad of a row: they do not count into `defective_share`."""


def dataset_metrics(
    files: Sequence[dict[str, Any]],
    verdict: Verdict,
    frozen: FrozenRows,
    test_set_rows: int,
    *,
    reused: Sequence[bool],
    others: list[str],
) -> DatasetMetrics:
    """Sum up the facts of all files and the verdict.

    Args:
        files: The facts of each file's part.
        verdict: What was decided of the rows.
        frozen: The frozen test sets.
        test_set_rows: Rows of the present or proposed one.
        reused: Whether each file's part was known.
        others: Names of files that are not read.

    Raises:
        AssertionError: rows read are not rows kept and rows quarantined: a defect of this package.
    """
    reasons = verdict.counts()
    for facts in files:
        reasons.update(facts["quarantined"])
    reasons = +reasons
    read = sum(facts["rows_read"] for facts in files)
    kept = verdict.reason == KEPT
    sides = {side: int((kept & (verdict.split == side)).sum()) for side in (TRAIN, TEST, HELD_OUT)}
    if read != int(kept.sum()) + reasons.total():
        raise AssertionError(f"{read} rows read, {int(kept.sum())} kept, {reasons.total()} quarantined")
    return DatasetMetrics(
        rows_read=read,
        rows_kept=int(kept.sum()),
        rows_quarantined=reasons.total(),
        quarantined_by_reason=dict(sorted(reasons.items())),
        defective_share=sum(n for name, n in reasons.items() if name not in _NO_DEFECTS) / max(read, 1),
        train_rows=sides[TRAIN],
        test_rows=sides[TEST],
        held_out_rows=sides[HELD_OUT],
        test_set_rows=test_set_rows,
        test_rows_in_data=sides[TEST],
        test_set_versions=[file.path.stem for file in frozen.files],
        test_set_is_new=not frozen.has_present or test_set_rows > frozen.present_rows,
        test_rows_withheld=frozen.withheld.total(),
        test_rows_withheld_by_reason=dict(sorted(frozen.withheld.items())),
        leaked_rows_removed=int((verdict.reason == LEAK).sum()),
        near_duplicate_rows=len(verdict.near) - int((verdict.reason == LEAK).sum()),
        conflicting_questions=len(verdict.conflicts),
        conflicting_rows=sum(len(run) for run in verdict.conflicts),
        rows_with_personal_data=sum(facts["rows_with_personal_data"] for facts in files),
        personal_data=dict(sum((Counter(facts["personal_data"]) for facts in files), Counter())),
        rows_with_secrets=sum(facts["rows_with_secrets"] for facts in files),
        secrets=dict(sum((Counter(facts["secrets"]) for facts in files), Counter())),
        files=[_file_entry(facts) for facts in files],
        files_damaged=[facts["file"] for facts in files if facts["damage"]],
        named_splits=verdict.named,
        preview=[{"file": facts["file"], **row} for facts in files for row in facts["preview"]][:_PREVIEW_ROWS],
        files_read=sum(not one for one in reused),
        files_reused=sum(reused),
        files_not_read=others,
    )


def _file_entry(facts: dict[str, Any]) -> dict[str, Any]:
    names = [
        *("file", "format", "compression", "encoding", "encoding_certainty", "delimiter", "quotes", "header_line"),
        *("shape", "shape_reason", "columns", "left_out", "unused", "quarantined", "met"),
    ]
    problem = None
    if facts["damage"]:
        problem = "{}: {}".format(*facts["damage"])
    elif facts["rows_read"] and not facts["shape"]:
        problem = "unknown_shape: its columns are none of a known shape's"
    return {
        **{name: facts[name] for name in names},
        "sections": [section[0] for section in facts["sections"]],
        "rows": facts["rows_read"],
        "readable_rows": facts["rows_kept"],
        "problem": problem,
        "sha256": facts["sha256"],
    }


def refuse_if_useless(metrics: DatasetMetrics, params: Any, folder: Path) -> None:
    """Stop where nothing could be trained or tested.

    Raises:
        UserError: No row was kept, or none is on one side of the split.
    """
    if not metrics.rows_kept:
        _refuse_without_rows(metrics, [params["question_column"], params["answer_column"]], folder)
    leaked, held_out = metrics.leaked_rows_removed, metrics.held_out_rows
    usable = f"of the {metrics.rows_kept} usable rows in {folder}"
    left_out = why_left_out(metrics.files)
    left_out = f" Left out: {left_out}." if left_out else ""
    by = _split_by(params)
    if not metrics.train_rows:
        raise UserError(
            f"None {usable} is a training row ({by}; {held_out} are held out because of the frozen test set or of the "
            f"files' names, {leaked} more ask what a test row asks). Add rows, or lower test_share.{left_out}"
        )
    if not metrics.test_set_rows:
        withheld = metrics.test_rows_withheld
        raise UserError(
            f"None {usable} is a test row ({by}; plain text and greetings are never a test"
            + (f"; the recipe's policies took {withheld} rows out of the test set" if withheld else "")
            + "). Without one no model can be judged: add questions and answers, raise test_share, or, if many rows "
            f"have one group, set group_column to a column that tells them apart.{left_out}"
        )
    if metrics.test_set_rows == 1:
        raise UserError(
            f"Only one {usable} is a test row ({by}), and no model can be judged by one answer: add questions and "
            "answers, raise test_share before the test set is frozen, or set group_column to a column that tells rows "
            f"apart.{left_out}"
        )


def _split_by(params: Any) -> str:
    what = (
        f"column {params['group_column']!r}" if params["group_column"] else "question, of chats with those that follow"
    )
    return f"test_share {params['test_share']}, chosen by a hash of the {what}"


def _refuse_without_rows(metrics: DatasetMetrics, wanted: list[str], folder: Path) -> None:
    for entry in metrics.files:
        if entry["columns"]:
            columns = ", ".join(map(repr, entry["columns"][:8]))
            hint = "".join(dict.fromkeys(nearest(name, entry["columns"]) for name in wanted))
            raise UserError(
                f"No usable row in {folder}: {entry['file']} has the columns {columns}; wanted are {wanted[0]!r} and "
                f"{wanted[1]!r}, or those of another shape (docs/data.md).{hint} Rename the columns, or set "
                "question_column and answer_column in the recipe."
            )
    problems = [f"{entry['file']}: {entry['problem']}" for entry in metrics.files if entry["problem"]]
    reasons = [why_left_out(metrics.files, at_most=8)] if any(entry["quarantined"] for entry in metrics.files) else []
    empty = [f"{entry['file']} is empty" for entry in metrics.files]
    found = "; ".join((problems + reasons or empty)[:8]) or "it holds no data file"
    raise UserError(f"No usable row in {folder}: {found}. Mend the files or put others there.")
