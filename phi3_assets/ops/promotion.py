"""From a release to a decision that is recorded: champion or not.

The rules are those of `phi3_assets.evaluation.gate`. The champion is part of no identity: the same release is judged
anew against whoever is champion now.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from phi3_assets.core.errors import UserError
from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import product_key, update
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.recipe import Recipe
from phi3_assets.ops.planning import CalledFor, Context
from phi3_assets.ops.registering import refuse_unregistrable, register_champion, wanted
from phi3_assets.ops.show import Metadata, changed, origin_metadata, place
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
    from phi3_assets.evaluation.changes import Side
    from phi3_assets.evaluation.gate import Decision
    from phi3_assets.evaluation.side_by_side import SideBySide
    from phi3_assets.ops.comparing import Compared

# Of so many promotions in a row, each between our look at the champion and our word, something else is wrong.
TRIES = 5


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
    context: Context, release: ArtefactRef, recipe: Recipe, store: ArtifactStore, execution: Execution
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
            return _decide(context, champion, release, recipe, store, execution)
        except ChampionChanged as changed:
            context.log.info(f"Judged anew: {changed}")
    raise UserError(f"The champion of {recipe.product} changes all the time; materialise champion again.")


def _decide(
    context: Context,
    champion: Champion,
    release: ArtefactRef,
    recipe: Recipe,
    store: ArtifactStore,
    execution: Execution,
) -> Decided:
    from phi3_assets.evaluation import gate
    from phi3_assets.evaluation.findings import Thresholds
    from phi3_assets.ops.comparing import Compared, compare, training_of

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
        "made_of": {name: ref.to_dict() for name, ref in made_of.items()},
        "training": training,
        "test_set": scores["test_set"],
        **wanted(recipe),
    }
    shown: Metadata = {"decision": decision.sentence}
    if present is not None and compared is not None and compared.comparison is not None:
        record |= {"best": compared.best, "comparison": compared.comparison.to_dict()}
        name, more = _keep_page(store, recipe, release, made_of, present, compared, decision)
        record["page"] = name
        shown |= more
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
    context.log.info(str(shown["decision"]))
    return Decided(entry, entry.action == "promote", shown)


def _keep_page(
    store: ArtifactStore,
    recipe: Recipe,
    release: ArtefactRef,
    made_of: dict[str, ArtefactRef],
    present: Entry,
    compared: "Compared",
    decision: "Decision",
) -> tuple[str, Metadata]:
    """Keep the page of a decision in the ledger; its name there, and what the UI shows of it."""
    from phi3_assets.evaluation.changes import find_changes, page, page_name
    from phi3_assets.evaluation.side_by_side import CANDIDATE, CHAMPION
    from phi3_assets.ops.comparing import made_of_entry

    side = compared.side
    assert side is not None
    assert present.release is not None
    ours = _side(store, made_of, side, CANDIDATE)
    theirs = _side(store, made_of_entry(present), side, CHAMPION)
    changes = find_changes(ours, theirs, side.known)
    name = page_name(release.identity, present.release.identity)
    key = product_key(recipe.product, "decisions", name)
    links = {"Report of this release": _link(store, key, made_of["eval_report"])}
    if present.report is not None:
        links["Report of the champion"] = _link(store, key, present.report)
    content = page(changes, decision, links).encode()
    update(store.ledger, key, lambda _: content)
    return name, {**changed(changes), "page": place(store.ledger.where(key))}


def crown(
    context: dg.AssetExecutionContext,
    recipe_resource: RecipeResource,
    store: ArtifactStore,
    execution: Execution,
    release_bundle: Record,
) -> Iterator[dg.MaterializeResult[Record]]:
    """Decide about a release; a materialisation of champion if it is the champion now, else an observation of it.

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
        decided = decide_champion(context, release, recipe, store, execution)
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
            metadata={**metadata, **champion_metadata(decided.entry)},
        )
        if failure is not None:
            raise failure
    else:
        about = {"release": release.identity[:SHORT], "action": decided.entry.action}
        context.log_event(dg.AssetObservation(context.asset_key, metadata={**metadata, **about}))


def champion_metadata(entry: Entry) -> Metadata:
    """What every materialisation of the asset champion shows."""
    shown: Metadata = {"action": entry.action, "reason": entry.sentence, "number": entry.number, "at": entry.at}
    if entry.release is not None:
        shown["release"] = entry.release.identity[:SHORT]
    if entry.report is not None:
        shown["report"] = entry.report.identity[:SHORT]
    return shown


def report_champion(entry: Entry, product: str) -> None:
    """Materialise the asset champion outside a run: a person promoted, rolled back or retired from a terminal."""
    with open_instance(Path(os.environ["DAGSTER_HOME"])) as instance:
        instance.report_runless_asset_event(
            dg.AssetMaterialization(
                "champion",
                description=entry.sentence,
                metadata={"product": product, **champion_metadata(entry)},
                tags={"dagster/data_version": entry.release.digest if entry.release else "none"},
            )
        )


def _side(store: ArtifactStore, made_of: dict[str, ArtefactRef], both: "SideBySide", model: str) -> "Side":
    """What one model made of the comparison, and what it was made of itself."""
    from phi3_assets.evaluation.changes import Side

    standing = manifests(store, made_of)
    rows = None
    if "raw_dataset" in standing:
        from phi3_assets.data.records import RECORDS, training_ids  # here, because it imports pyarrow

        rows = training_ids(store.peek(made_of["raw_dataset"], RECORDS) / RECORDS)
    records = [{**record, "variants": {"int4": record["variants"][model]}} for record in both.records]
    return Side(records, standing, rows, both.numbers[model])


def _link(store: ArtifactStore, page_key: str, report: ArtefactRef) -> str:
    """From a page in the ledger to a report; relative on a disk, so that a home can be moved."""
    target = f"{store.where(report)}/report.html"
    return target if "://" in target else os.path.relpath(target, Path(store.ledger.where(page_key)).parent)
