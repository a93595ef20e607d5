"""The pages of decisions, kept in the ledger beside their record: every refusal has one, with all its reasons.

A page links to reports as files of the home, so it can be read wherever the home is; `phi3 web` shows both.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from phi3_assets.core.finding import Finding
from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import product_key, update
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.core.web_address import DECISION, page_url
from phi3_assets.release.history import DECISIONS, Entry
from phi3_assets.resources.lineage import manifests
from phi3_assets.resources.store import ArtifactStore

if TYPE_CHECKING:
    from phi3_assets.evaluation.changes import Changes, Side
    from phi3_assets.evaluation.gate import Decision
    from phi3_assets.evaluation.side_by_side import SideBySide
    from phi3_assets.ops.comparing import Compared


@dataclass(frozen=True)
class KeptPage:
    """A page that was kept.

    Attributes:
        name: In the ledger's folder of the product's decisions.
        where: Path or URI of it.
        url: Where `phi3 web` shows it; None where that is not used.
    """

    name: str
    where: str
    url: str | None

    @property
    def told(self) -> str:
        """Where a person reads it."""
        return f"Page: {self.url or self.where}"


def keep_decision(
    store: ArtifactStore,
    product: str,
    title: str,
    about: str,
    decision: "Decision",
    made_of: dict[str, ArtefactRef],
    present: Entry | None,
    changes: "Changes | None",
) -> KeptPage:
    """Keep the page of what was decided about a release.

    Args:
        store: Of the home.
        product: Whose champion it is about.
        title: The outcome.
        about: The release, for people.
        decision: The gate's.
        made_of: The release and what it was made of, by name.
        present: The decision that made the champion, if there is one.
        changes: What changed since the champion, if that could be seen.
    """
    from phi3_assets.evaluation.changes import page_name

    against = present.release.identity if present and present.release else ""
    reports = {"Report of this release": made_of["eval_report"]}
    if present is not None and present.report is not None:
        reports["Report of the champion"] = present.report
    name = page_name(made_of["release_bundle"].identity, against)
    return _keep(store, product, name, title, about, decision, reports, changes)


def keep_unfit(store: ArtifactStore, product: str, report: ArtefactRef, findings: Sequence[Finding]) -> KeptPage:
    """Keep the page of a model that is not fit for release, so that there is none.

    Args:
        store: Of the home.
        product: Whose model it is.
        report: The eval_report that says so.
        findings: Every rule that was applied to it.
    """
    from phi3_assets.evaluation.changes import unfit_page_name
    from phi3_assets.evaluation.gate import Decision

    decision = Decision(fit=False, promote=False, findings=tuple(findings))
    about = f"Model of eval_report {report.identity[:SHORT]}, product {product}"
    title, name = "Refused: not fit for release", unfit_page_name(report.identity)
    return _keep(store, product, name, title, about, decision, {"Report": report}, None)


def changes_since(
    store: ArtifactStore, made_of: dict[str, ArtefactRef], theirs: dict[str, ArtefactRef], compared: "Compared"
) -> "Changes | None":
    """What changed since the champion.

    Args:
        store: Of the home.
        made_of: What the release was made of, by name.
        theirs: The same of the champion.
        compared: The two side by side.

    Returns:
        None where the champion could not be put beside it.
    """
    from phi3_assets.evaluation.changes import find_changes
    from phi3_assets.evaluation.side_by_side import CANDIDATE, CHAMPION

    side = compared.side
    if side is None:
        return None
    return find_changes(_side(store, made_of, side, CANDIDATE), _side(store, theirs, side, CHAMPION), side.known)


def _keep(
    store: ArtifactStore,
    product: str,
    name: str,
    title: str,
    about: str,
    decision: "Decision",
    reports: dict[str, ArtefactRef],
    changes: "Changes | None",
) -> KeptPage:
    from phi3_assets.evaluation.changes import page

    key = product_key(product, DECISIONS, name)
    where = store.ledger.where(key)
    links = {text: _link(store, where, report) for text, report in reports.items()}
    content = page(title, about, decision, links, changes).encode()
    update(store.ledger, key, lambda _: content)
    return KeptPage(name, where, page_url(DECISION, product, name))


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


def _link(store: ArtifactStore, page: str, report: ArtefactRef) -> str:
    """From a page in the ledger to a report; relative on a disk, so that a home can be moved."""
    target = f"{store.where(report)}/report.html"
    return target if "://" in target else os.path.relpath(target, Path(page).parent)
