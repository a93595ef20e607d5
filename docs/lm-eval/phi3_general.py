"""Rows of the task phi3_general: the questions of `phi3_assets/evaluation/general.yaml`."""

from typing import Any

import yaml

from phi3_assets.evaluation.general import SUITE


def load(**_: Any) -> dict[str, Any]:
    """The one split, `test`: text, and choices with the right one first."""
    import datasets

    questions = yaml.safe_load(SUITE.read_text(encoding="utf-8"))["questions"]
    rows = [{"text": one["text"], "choices": [one["right"], *one["wrong"]]} for one in questions]
    return {"test": datasets.Dataset.from_list(rows)}
