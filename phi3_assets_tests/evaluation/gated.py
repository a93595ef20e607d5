"""Puts an evaluation through the real asset checks, in front of a release that is only made if they let it pass."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

from phi3_assets.checks.gate import model_is_fit
from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import ArtefactRef, Manifest, seal
from phi3_assets.core.step import StepCall
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import PointerIOManager
from phi3_assets.resources.recipe import RecipeResource


@dataclass
class Outcome:
    """What became of an evaluation: was a release made, and what did each check say."""

    released: bool
    checks: dict[str, dg.AssetCheckEvaluation]

    @property
    def refused(self) -> dict[str, str]:
        """Sentence of each check that failed."""
        return {name: one.description or "" for name, one in self.checks.items() if not one.passed}


def publish(
    store: LocalArtifactStore,
    kind: str,
    files: Mapping[str, str],
    /,
    name: str = "",
    made_from: Mapping[str, ArtefactRef] | None = None,
    **metrics: Any,
) -> ArtefactRef:
    """An artefact of the store that holds these texts."""
    call = StepCall(step=kind, code_version="test", params={"name": name}, inputs={}, libraries={})
    staged = store.staging_path(call)
    staged.mkdir(parents=True)
    for path, text in files.items():
        (staged / path).write_text(text, encoding="utf-8")
    seal(staged, Manifest(call=call, files=hash_files(staged), metrics=metrics, made_from=dict(made_from or {})))
    return store.publish(call, staged).ref


def publish_report(
    store: LocalArtifactStore,
    scores: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    name: str = "",
    made_from: Mapping[str, ArtefactRef] | None = None,
) -> ArtefactRef:
    """An eval_report with these scores."""
    lines = "".join(json.dumps(record) + "\n" for record in records)
    files = {"scores.json": json.dumps(scores), "items.jsonl": lines}
    return publish(store, "eval_report", files, name, made_from, variants=scores["variants"])


def through_the_checks(home: Path, report: ArtefactRef, **recipe: Any) -> Outcome:
    """Run the checks on a report as a run of the graph would; `recipe` replaces fields of the default recipe."""
    made = []

    @dg.asset(name="eval_report")
    def eval_report():
        return {**report.to_dict(), "product": "operations-desk", "planned": 0.0}

    @dg.asset(name="release_bundle")
    def release_bundle(eval_report):
        made.append(eval_report)
        return {**report.to_dict(), "product": "operations-desk", "planned": 0.0}

    store = LocalArtifactStore(home=str(home))
    result = dg.materialize(
        [eval_report, release_bundle, model_is_fit],
        resources={
            "store": store,
            "recipe": RecipeResource(recipe="smol-cpu", **recipe),
            "io_manager": PointerIOManager(store=store),
        },
        raise_on_error=False,
    )
    return Outcome(bool(made), {one.check_name: one for one in result.get_asset_check_evaluations()})
