"""Has a candidate scored side by side with the champion, and reads what came out.

The champion's int4 model is taken from the store and put the questions that are asked now, by the process that scores
the candidate too; so are the earlier champions that were best in something.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from phi3_assets.core.files import read_json
from phi3_assets.core.finding import Finding
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef, Manifest
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.step import sha256_of
from phi3_assets.evaluation.against_champion import judge_against
from phi3_assets.evaluation.findings import Margins
from phi3_assets.evaluation.gate import read_evaluation
from phi3_assets.evaluation.looks import look_of
from phi3_assets.evaluation.noise import training_noise
from phi3_assets.evaluation.side_by_side import CANDIDATE, CHAMPION, SideBySide, best_so_far
from phi3_assets.ops.planning import Context, make_call, to_json
from phi3_assets.ops.running import run_plan
from phi3_assets.release.history import Entry
from phi3_assets.resources.execution import Execution
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import CHAMPION_COMPARISON, COMPARISON_FILES, EVALUATION_FILES

BEST_IN = ("exact_match", "f1", "nll", "stop_rate", "json_valid", "general_nll", "bytes")
"""What the best champion so far is kept in mind for."""
SEEDS = ("seed", "data_seed")
GONE = Finding(
    "scored_side_by_side",
    False,
    "The champion's int4 model is gone from the store, so it cannot be put the questions that are asked now. "
    "Restore it, or retire this champion (phi3 champion retire): the next release that is fit becomes it.",
)


class StepAside(dg.OpExecutionContext):
    """For a step whose artefact is no output of the op that runs it.

    Of an op of an asset, Dagster's Pipes demands from then on that it yields a materialisation; the asset champion has
    none to yield where a release is refused.
    """

    @property
    def has_assets_def(self) -> bool:
        """No asset is made by this step."""
        return False


@dataclass(frozen=True)
class Compared:
    """A candidate beside the champion.

    Attributes:
        findings: The rules that decide a promotion.
        side: The scores; None: the champion could not be scored.
        comparison: The artefact that they are read from.
        best: What the decision records of the best models so far, for the next one.
    """

    findings: list[Finding]
    side: SideBySide | None = None
    comparison: ArtefactRef | None = None
    best: list[dict[str, str]] = field(default_factory=list)


def compare(
    context: Context,
    made_of: Mapping[str, ArtefactRef],
    history: Sequence[Entry],
    present: Entry,
    test_set: str,
    training: Mapping[str, Any] | None,
    recipe: Recipe,
    store: ArtifactStore,
    execution: Execution,
) -> Compared:
    """Score a candidate and the champion side by side, unless they were, and judge them.

    Args:
        context: Of the running op.
        made_of: The candidate's artefacts, by name.
        history: All decisions so far.
        present: The one that made the champion.
        test_set: Digest of the candidate's questions and answers.
        training: Which training the candidate came from (`training_of`).
        recipe: This run's.
        store: Where artefacts stand.
        execution: Runs what is not scored yet.

    Raises:
        dagster.Failure: Scoring failed.
    """
    champion = made_of_entry(present).get("onnx_int4_model")
    if champion is None or store.find(champion.kind, champion.identity) is None:
        return Compared([GONE])
    models = {CANDIDATE: made_of["onnx_int4_model"], CHAMPION: champion}
    models |= {f"earlier_{ref.identity[:SHORT]}": ref for ref in _best(present, store) if ref not in models.values()}
    inputs = {name: made_of[name] for name in ("formatted_corpus", "base_model")} | models
    call = make_call(CHAMPION_COMPARISON, recipe, inputs)
    plan = {"call": call.to_dict(), "inputs": {name: to_json(ref) for name, ref in inputs.items()}}
    aside = StepAside(context.get_step_execution_context())
    comparison = ArtefactRef(**run_plan(aside, plan, execution, store)["ref"])
    numbers, records = _read(store, comparison)
    margins = Margins.from_params(recipe.model_dump())
    # What was decided about this very release before must not change what is decided about it now.
    decisions = [entry.decision for entry in history if entry.release != made_of["release_bundle"]]
    side = SideBySide(
        records=records,
        numbers=numbers,
        known=_known(store, present),
        noise=training_noise(decisions, margins.metric, margins.training_noise, training),
        look=look_of(decisions, test_set),
    )
    names = [CANDIDATE, CHAMPION, *side.earlier]
    best = dict.fromkeys(best_so_far(side, metric, names) for metric in BEST_IN)
    kept = [models[name].to_dict() for name in best if name != CANDIDATE]
    return Compared(judge_against(side, margins), side, comparison, kept)


def made_of_entry(entry: Entry) -> dict[str, ArtefactRef]:
    """The artefacts of a decision's release, by name; empty where it does not say."""
    return {name: ArtefactRef(**ref) for name, ref in entry.decision.get("made_of", {}).items()}


def training_of(
    made_of: Mapping[str, ArtefactRef], standing: Mapping[str, Manifest], scores: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Which training a release came from, for the noise between trainings that differ in their seeds alone.

    None: its adapter or int4 model is gone, so nobody knows.
    """
    if {"lora_adapter", "onnx_int4_model"} - standing.keys():
        return None
    calls = [standing[name].call for name in ("lora_adapter", "onnx_int4_model")]
    params = {name: value for call in calls for name, value in call.params.items() if name not in SEEDS}
    corpus, base = (made_of[name].digest for name in ("formatted_corpus", "base_model"))
    versions = [[call.code_version, call.libraries] for call in calls]
    int4 = scores["variants"]["int4"]
    return {
        "of": sha256_of([params, corpus, base, versions, scores.get("machine")]),
        "adapter": made_of["lora_adapter"].digest,
        "scores": {metric: int4[metric] for metric in ("nll", "exact_match", "f1")},
    }


def _best(present: Entry, store: ArtifactStore) -> list[ArtefactRef]:
    """The int4 models that were best in something when the champion was made it, as far as they stand."""
    refs = [ArtefactRef(**ref) for ref in present.decision.get("best", [])]
    return [ref for ref in dict.fromkeys(refs) if store.find(ref.kind, ref.identity) is not None]


def _read(store: ArtifactStore, comparison: ArtefactRef) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Numbers of each model, speed included, and the items."""
    folder = store.peek(comparison, *COMPARISON_FILES)
    scores, records = read_evaluation(folder)
    speeds = read_json(folder / "speed.json")["variants"]
    return {name: {**one, **speeds.get(name, {})} for name, one in scores["variants"].items()}, records


def _known(store: ArtifactStore, present: Entry) -> set[str]:
    """Ids of the items that the champion's own report was made on; empty if that is gone."""
    report = present.report
    if report is None or store.find(report.kind, report.identity) is None:
        return set()
    _, records = read_evaluation(store.peek(report, *EVALUATION_FILES))
    return {str(record["id"]) for record in records}
