"""What the first page shows of each product, read from the ledger alone."""

import re
from dataclasses import dataclass
from typing import Any

from phi3_assets.core.home import SHORT
from phi3_assets.core.ledger import product_key, products
from phi3_assets.core.web_address import DECISION, LINEAGE, REPORT, page_path
from phi3_assets.data.testset import versions as test_sets
from phi3_assets.release.champion import Champion
from phi3_assets.release.history import DECISIONS, Entry, last_about, status_of
from phi3_assets.resources.asked import known_releases
from phi3_assets.resources.pointers import latest, latest_recipe
from phi3_assets.resources.store import ArtifactStore
from phi3_assets.steps import EVAL_REPORT, RELEASE_BUNDLE

_NOT_FIT = re.compile(rf"(?P<report>[0-9a-f]{{{SHORT}}})-not-fit\.html")


@dataclass(frozen=True)
class Row:
    """A release.

    Attributes:
        identity: 64 hex digits.
        status: See `status_of`.
        at: When it was decided, UTC; "" where nothing was.
        why: The decision in sentences, or a person's reason.
        recipe: Its name with what the run replaced in it; "" where it was not recorded.
        scores: Exact match and NLL of its int4 model on the questions of its own report, as text.
        links: Its pages, by name.
    """

    identity: str
    status: str
    at: str
    why: str
    recipe: str
    scores: dict[str, str]
    links: dict[str, str]


@dataclass(frozen=True)
class Overview:
    """A product.

    Attributes:
        product: Its name.
        champion: The release to take; None: there is none.
        retired: Why the last champion was retired, where that is why there is none; else "".
        releases: All of them, the last decided first.
        unfit: Pages of the models that were not fit for release, by how the identity of their report begins.
        newest_report: Page of the report made last, where it belongs to none of the releases; else "".
        test_set: What it is tested with, as text.
    """

    product: str
    champion: Row | None
    retired: str
    releases: list[Row]
    unfit: dict[str, str]
    newest_report: str
    test_set: str


def overviews(store: ArtifactStore) -> list[Overview]:
    """All products of a store, by name.

    Raises:
        DamagedArtefact: A value of the ledger cannot be read.
    """
    return [overview(store, product) for product in products(store.ledger)]


def overview(store: ArtifactStore, product: str) -> Overview:
    """One product.

    Raises:
        DamagedArtefact: A value of the ledger cannot be read.
    """
    history = Champion(store.ledger, product).history()
    decided = [(one, last_about(history, one)) for one in known_releases(store, product, history)]
    # What nothing was decided about is newer than what was.
    decided.sort(key=lambda item: item[1].number if item[1] else len(history) + 1, reverse=True)
    rows = [_row(store, product, release.identity, status_of(history, release), entry) for release, entry in decided]
    released = {entry.report.identity[:SHORT] for entry in history if entry.report}
    pages = [key.rpartition("/")[2] for key in store.ledger.keys(product_key(product, DECISIONS, ""))]
    unfit = {
        found["report"]: page_path(DECISION, product, page)
        for page in pages
        # By another recipe's thresholds it may have become fit since.
        if (found := _NOT_FIT.fullmatch(page)) and found["report"] not in released
    }
    newest = latest(store.ledger, product, EVAL_REPORT.name)
    newest_page = page_path(REPORT, newest.identity) if newest else ""
    version = test_sets.present(test_sets.read_versions(store.ledger, product))
    return Overview(
        product=product,
        champion=next((row for row in rows if row.status == "the champion"), None),
        retired=next((one.sentence for one in reversed(history) if one.action == "retire"), ""),
        releases=rows,
        unfit=unfit,
        newest_report="" if any(newest_page in row.links.values() for row in rows) else newest_page,
        test_set=f"{version.rows} rows, frozen {version.at[:10]}, {version.file}" if version else "none yet",
    )


def _row(store: ArtifactStore, product: str, identity: str, status: str, entry: Entry | None) -> Row:
    decision: dict[str, Any] = entry.decision if entry else {}
    links = {"chat": f"/chat/?product={product}&release={identity}"}
    if entry is not None and entry.report is not None:
        links["report"] = page_path(REPORT, entry.report.identity)
    if "page" in decision:
        links["decision"] = page_path(DECISION, product, decision["page"])
    links["lineage"] = page_path(LINEAGE, identity)
    scores = (decision.get("training") or {}).get("scores")
    recipe = decision.get("recipe") if entry else latest_recipe(store.ledger, product, RELEASE_BUNDLE.name)
    return Row(
        identity=identity,
        status=status,
        at=entry.at[:16].replace("T", " ") if entry else "",
        why=entry.sentence if entry else "",
        recipe=recipe or "",
        scores={"exact match": f"{scores['exact_match']:.1%}", "NLL": f"{scores['nll']:.3f}"} if scores else {},
        links=links,
    )
