"""From an evaluation to a decision that is recorded: fit for release or not, champion or not.

The rules are those of `phi3_assets.evaluation.gate`. The champion is part of no identity: the same release is judged
anew against whoever is champion now.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from phi3_assets.core.files import write_atomically
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.evaluation import gate
from phi3_assets.evaluation.changes import Side, find_changes, markdown, page, page_name
from phi3_assets.evaluation.findings import Thresholds
from phi3_assets.ops import show as ui
from phi3_assets.ops.planning import Context, Record, readable_errors
from phi3_assets.release import champion
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


def judge_report(report: Record, recipe: RecipeResource, store: ArtifactStore) -> gate.Decision:
    """Say whether the model of an eval_report is fit for release; a refusal goes into the history."""
    with readable_errors():
        ref = ArtefactRef(**report)
        decision = gate.decide(*gate.read_evaluation(store.fetch(ref)), _thresholds(recipe))
        if not decision.fit:
            champion.refuse(store.home_path, None, ref, decision.to_dict())
        return decision


def promote_release(
    context: Context, done: Mapping[str, Any], recipe: RecipeResource, store: ArtifactStore
) -> ui.Metadata:
    """Let the gate decide whether a release becomes the champion, and record what it decided.

    Returns:
        The decision in one sentence and what changed since the champion, for the UI.
    """
    with readable_errors():
        release, report = (ArtefactRef(**ref) for ref in (done["ref"], done["inputs"]["eval_report"]))
        present = champion.champion(store.home_path)
        if present is not None and present.release == release:
            return {"champion": "It is the champion."}
        scores, records = gate.read_evaluation(store.fetch(report))
        against = gate.read_evaluation(store.fetch(present.report))[1] if present else None
        decision = gate.decide(scores, records, _thresholds(recipe), against)
        made_of = lineage(store, release, done["inputs"])
        record = {**decision.to_dict(), "made_of": {name: ref.to_dict() for name, ref in made_of.items()}}
        shown: ui.Metadata = {"champion": decision.sentence}
        if present is not None and present.release is not None and against is not None:
            theirs = {name: ArtefactRef(**ref) for name, ref in present.decision.get("made_of", {}).items()}
            theirs = {**theirs, "release_bundle": present.release, "eval_report": present.report}
            changes = find_changes(_side(store, made_of, records), _side(store, theirs, against))
            path = decisions_path(store.home_path) / page_name(release.identity, present.release.identity)
            links = {
                "Report of this release": _report_link(report),
                "Report of the champion": _report_link(present.report),
            }
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, page(changes, decision, links))
            record["page"] = path.name
            shown |= {
                "what changed since the champion": dg.MetadataValue.md(markdown(changes)),
                "decision": dg.MetadataValue.path(str(path)),
            }
        if decision.promote:
            champion.promote(
                store.home_path,
                release,
                report,
                record,
                judged_against=present.release if present else None,
                check=lambda ref: store.fetch(ref, content=True),
            )
        else:
            champion.refuse(store.home_path, release, report, record)
        context.log.info(decision.sentence)
        return shown


def decisions_path(home: Path) -> Path:
    """Where the pages of decisions stand, one for each release that was compared with a champion."""
    return champion.champion_path(home).with_name("decisions")


def lineage(store: ArtifactStore, release: ArtefactRef, inputs: Mapping[str, Any]) -> dict[str, ArtefactRef]:
    """All artefacts that a release was made of, by name, itself included.

    Manifests name their inputs by content alone; which artefact that was is known from what was materialised last. One
    that was made over since then is left out.
    """
    found = {release.kind: release, **{name: ArtefactRef(**ref) for name, ref in inputs.items() if "kind" in ref}}
    waiting = list(found.values())
    while waiting:
        ref = waiting.pop()
        manifest = store.find(ref.kind, ref.identity)
        for name, digest in manifest.call.inputs.items() if manifest else ():
            pointer = store.load_pointer(f"latest/{name}") if name not in found else None
            if pointer and pointer["digest"] == digest:
                found[name] = ArtefactRef(**pointer)
                waiting.append(found[name])
    return found


def _side(store: ArtifactStore, made_of: Mapping[str, ArtefactRef], records: list[dict[str, Any]]) -> Side:
    manifests = {name: store.find(ref.kind, ref.identity) for name, ref in made_of.items()}
    standing = {name: manifest for name, manifest in manifests.items() if manifest}
    rows = None
    if "raw_dataset" in standing:
        from phi3_assets.data.records import RECORDS, training_ids  # here, because it imports pyarrow

        rows = training_ids(store.fetch(made_of["raw_dataset"]) / RECORDS)
    return Side(records, standing, rows)


def _report_link(report: ArtefactRef) -> str:
    return f"../eval_report/{report.identity[:SHORT]}/report.html"


def _thresholds(recipe: RecipeResource) -> Thresholds:
    return Thresholds.from_params(recipe.load().model_dump())
