"""What must hold of a raw_dataset before anything is made of it: pure rules over its metrics and the recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.recipe import Recipe
from phi3_assets.data.judge.ways_out import why_left_out


def every_row_is_accounted_for(metrics: Mapping[str, Any], recipe: Recipe) -> Finding:
    """Rows read = rows kept + rows in quarantine, and no more of them are defective than the recipe allows."""
    read, kept, quarantined = (metrics[name] for name in ("rows_read", "rows_kept", "rows_quarantined"))
    defective, limit = metrics["defective_share"], recipe.max_defective_share
    why = why_left_out(metrics["files"])
    return Finding(
        "every_row_is_accounted_for",
        read == kept + quarantined and kept > 0 and defective <= limit,
        f"{read} rows read, {kept} kept, {quarantined} in quarantine; {defective:.1%} are defective "
        f"(max_defective_share {limit:.1%}). {f'{why}. ' if why else ''}"
        "quarantine.jsonl in the artefact names file, row and reason of each.",
        {"rows_read": read, "rows_kept": kept, "rows_quarantined": quarantined, "defective_share": defective},
    )


def tests_come_from_the_data(metrics: Mapping[str, Any], recipe: Recipe) -> Finding:
    """Some row of the test set is in the present data; else a model would be scored on somebody else's questions."""
    tests, present = metrics["test_set_rows"], metrics["test_rows_in_data"]
    numbers = {"test_rows": tests, "test_rows_in_data": present}
    if present:
        return Finding(
            "tests_come_from_the_data", True, f"{present} of {tests} test rows are in the present data.", numbers
        )
    return Finding(
        "tests_come_from_the_data",
        False,
        f"None of the {tests} rows of the test set of product {recipe.product} is in the present data: what is trained "
        "on it would be scored on other questions. If this is another line of models, name it in the recipe "
        "(product: my-desk); if the data was replaced for good, run `phi3 testset retire --product "
        f'{recipe.product} --reason "..."` and a test set of the present data is proposed.',
        numbers,
    )


RULES = (every_row_is_accounted_for, tests_come_from_the_data)


def judge_dataset(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """The blocking rules of raw_dataset."""
    return [rule(metrics, recipe) for rule in RULES]
