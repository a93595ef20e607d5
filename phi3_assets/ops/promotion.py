"""From a release to a decision that is recorded: champion or not.

The rules are those of `phi3_assets.evaluation.gate`. The champion is part of no identity: the same release is judged
anew against whoever is champion now.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.recipe import Recipe
from phi3_assets.core.web_address import DECISION, LINEAGE, REPORT, page_url
from phi3_assets.ops.decision_pages import changes_since, keep_decision
from phi3_assets.ops.planning import CalledFor, Context
from phi3_assets.ops.registering import refuse_unregistrable, register_champion, wanted
from phi3_assets.ops.show import Metadata, changed, links, origin_metadata, place
from phi3_assets.release.champion import Champion, ChampionChanged
from phi3_assets.release.history import Entry
from phi3_assets.release.history import present as present_of
from phi3_assets.resources.execution import Execution, readable_errors
from phi3_assets.resources.lineage import lineage, manifests
from phi3_assets.resources.origin import origin_of
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.runs import open_instance
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import EVALUATION_FILES

if TYPE_CHECKING:
    from phi3_assets.evaluation.gate import Decision

# Of so many promotions in a row, each between our look at the champion and our word, something else is wrong.
TRIES = 5
NEWEST_IS_CHAMPION = "newest_release_is_champion"


@dataclass(frozen=True)
class Decided:
    """What was decided about a release.

    Attributes:
        entry: The entry of the history that says so.
        is_champion: Whether the release is the champion now.
        shown: The decision in one sentence and what changed since the champion, for the UI.
    """

    entry: Entry
    is_champion: bool
    shown: Metadata = field(default_factory=dict)


def decide_champion(
    context: Context,
    release: ArtefactRef,
    recipe: Recipe,
    recipe_told: str,
    store: ArtifactStore,
    execution: Execution,
) -> Decided:
    """Let the gate decide whether a release becomes the champion of the recipe's product, and record what it decided.

    Where another run promotes its release meanwhile, the decision is made again, against that one.

    Raises:
        UserError: The release's report is gone.
        DamagedArtefact: The release or its report is not what was made.
        dagster.Failure: The champion could not be scored.
    """
    champion = Champion(store.ledger, recipe.product)
    for _ in range(TRIES):
        try:
            return _decide(context, champion, release, recipe, recipe_told, store, execution)
        except ChampionChanged as changed:
            context.log.info(f"Judged anew: {changed}")
    raise UserError(f"The champion of {recipe.product} changes all the time; materialise champion again.")


def _decide(
    context: Context,
    champion: Champion,
    release: ArtefactRef,
    recipe: Recipe,
    recipe_told: str,
    store: ArtifactStore,
    execution: Execution,
) -> Decided:
    from phi3_assets.evaluation import gate
    from phi3_assets.evaluation.findings import Thresholds
    from phi3_assets.ops.comparing import Compared, compare, made_of_entry, training_of

    history = champion.history()
    present = present_of(history)
    if present is not None and present.release == release:
        return Decided(present, True, {"decision": "It is the champion.", "reused": True})
    made_of = lineage(store, release)
    report = made_of.get("eval_report")
    if report is None:
        raise UserError(f"Of release {release.identity[:SHORT]} nobody knows its report; materialise it again.")
    scores, records = gate.read_evaluation(store.peek(report, *EVALUATION_FILES))
    training = training_of(made_of, manifests(store, made_of), scores)
    compared: Compared | None = None
    if present is not None:
        compared = compare(context, made_of, history, present, scores["test_set"], training, recipe, store, execution)
    thresholds = Thresholds.from_params(recipe.model_dump())
    decision = gate.decide(scores, records, thresholds, compared.findings if compared else None)
    record = {
        **decision.to_dict(),
        "recipe": recipe_told,
        "made_of": {name: ref.to_dict() for name, ref in made_of.items()},
        "training": training,
        "test_set": scores["test_set"],
        **wanted(recipe),
    }
    changes = None
    if present is not None and compared is not None and compared.comparison is not None:
        record |= {"best": compared.best, "comparison": compared.comparison.to_dict()}
        changes = changes_since(store, made_of, made_of_entry(present), compared)
    title = _title(decision, recipe)
    about = f"Release {release.identity[:SHORT]} of {recipe.product}, recipe {recipe_told}"
    page = keep_decision(store, recipe.product, title, about, decision, made_of, present, changes)
    record["page"] = page.name
    shown: Metadata = {"decision": decision.sentence}
    if changes is not None:
        shown |= changed(changes)
    shown["page"] = place(page.where)
    judged_against = present.release if present else None
    if not decision.promote:
        entry = champion.refuse(release, report, record)
    elif recipe.promotion == "approval":
        entry = champion.propose(release, report, record, judged_against=judged_against)
        shown["decision"] = (
            f"{decision.sentence} It waits for approval: phi3 champion approve {release.identity[:SHORT]} --reason ..."
        )
    else:
        entry = champion.promote(release, report, record, judged_against=judged_against, check=store.verify)
    context.log.info(f"Release {release.identity[:SHORT]}: {shown['decision']} {page.told}")
    return Decided(entry, entry.action == "promote", shown)


def _title(decision: "Decision", recipe: Recipe) -> str:
    if not decision.fit:
        return "Refused: not fit for release"
    if not decision.promote:
        return "Refused: the champion stays"
    return "It waits for a person's approval" if recipe.promotion == "approval" else "Promoted: it is the champion"


def crown(
    context: dg.AssetExecutionContext,
    recipe_resource: RecipeResource,
    store: ArtifactStore,
    execution: Execution,
    release_bundle: Record,
) -> Iterator[dg.MaterializeResult[Record] | dg.AssetCheckResult]:
    """Decide about a release; a materialisation of champion if it is the champion now, else an observation of it.

    In either case the check `NEWEST_IS_CHAMPION` shows at the asset what was decided.

    Raises:
        dagster.Failure: After the materialisation, where the champion could not be registered: it is champion all the
            same, and materialising it again tries again.
    """
    planned = time.time()
    with readable_errors():
        recipe = recipe_resource.load()
        refuse_unregistrable(recipe, store)
        release = CalledFor(recipe, store, context.log.info, {"release_bundle": release_bundle}).artefact(
            "release_bundle"
        )
        origin = origin_of(
            store, release
        )  # before anything is decided: a release that contradicts itself is no champion
        decided = decide_champion(context, release, recipe, recipe_resource.told(), store, execution)
    yield dg.AssetCheckResult(**newest_is_champion(decided.entry, recipe.product, decided.is_champion))
    metadata = {"product": recipe.product, **decided.shown, **origin_metadata(origin)}
    if decided.is_champion:
        failure = None
        try:
            with readable_errors():
                registered = register_champion(decided.entry, recipe.product, store, wanted(recipe))
                metadata |= {"registered as": registered} if registered else {}
        except dg.Failure as error:
            failure = error
        yield dg.MaterializeResult(
            value={**release.to_dict(), "product": recipe.product, "planned": planned},
            data_version=dg.DataVersion(release.digest),
            metadata={**champion_metadata(decided.entry, recipe.product), **metadata},
        )
        if failure is not None:
            raise failure
    else:
        about = champion_metadata(decided.entry, recipe.product)
        context.log_event(dg.AssetObservation(context.asset_key, metadata={**about, **metadata}))


def champion_metadata(entry: Entry, product: str) -> Metadata:
    """What every materialisation and observation of the asset champion shows; the pages first."""
    shown: Metadata = decision_links(entry, product)
    shown |= {"action": entry.action, "reason": entry.sentence, "number": entry.number, "at": entry.at}
    if entry.release is not None:
        shown["release"] = entry.release.identity[:SHORT]
    if entry.report is not None:
        shown["report"] = entry.report.identity[:SHORT]
    return shown


def decision_links(entry: Entry, product: str) -> Metadata:
    """Where `phi3 web` shows the pages of a decision."""
    pages = {"decision page": page_url(DECISION, product, entry.decision["page"])} if "page" in entry.decision else {}
    if entry.report is not None:
        pages["report page"] = page_url(REPORT, entry.report.identity)
    if entry.release is not None:
        pages["lineage page"] = page_url(LINEAGE, entry.release.identity)
    return links(pages)


def newest_is_champion(entry: Entry, product: str, passed: bool) -> dict[str, Any]:
    """A decision as what the check `NEWEST_IS_CHAMPION` says, which tells and holds nothing back."""
    broken = [one for one in entry.decision.get("findings", []) if not one["passed"]]
    about = f"Release {entry.release.identity[:SHORT]}: " if entry.release else ""
    return {
        "asset_key": dg.AssetKey("champion"),
        "check_name": NEWEST_IS_CHAMPION,
        "passed": passed,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"{about}{entry.sentence}",
        "metadata": {
            **decision_links(entry, product),
            "decided": entry.action,
            "rules that were broken": dg.MetadataValue.json({one["rule"]: one["sentence"] for one in broken}),
        },
    }


def report_champion(entry: Entry, product: str) -> None:
    """Materialise the asset champion outside a run: a person promoted, rolled back or retired from a terminal."""
    with open_instance(Path(os.environ["DAGSTER_HOME"])) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "champion",
                description=entry.sentence,
                metadata={"product": product, **champion_metadata(entry, product)},
                tags={"dagster/data_version": entry.release.digest if entry.release else "none"},
            )
        )
        told = newest_is_champion(entry, product, entry.action == "promote")
        instance.report_runless_asset_event(dg.AssetCheckEvaluation(**told))
