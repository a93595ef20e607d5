"""What ops hand to one another, and what each asset was last: small JSON records in the ledger, never a model.

The record of an asset is {"kind", "identity", "digest", "product", "planned", "recipe"}: an artefact, the product it
was made for, when that was planned, in seconds since 1970, and the recipe's name with what the run replaced in it.
"""

import time
from typing import Any

import dagster as dg

from phi3_assets.core.ledger import Ledger, product_key, read_json, run_key, update_json
from phi3_assets.core.manifest import ArtefactRef
from phi3_assets.resources.store import ArtifactStore

Record = dict[str, Any]


def ref_of(record: Record) -> ArtefactRef:
    """The artefact that a record names."""
    return ArtefactRef(kind=record["kind"], identity=record["identity"], digest=record["digest"])


def latest(ledger: Ledger, product: str, asset: str) -> ArtefactRef | None:
    """What this asset was when it was last materialised for this product, or None.

    Raises:
        DamagedArtefact: The pointer cannot be read.
    """
    record = read_json(ledger, _latest_key(product, asset))
    return ref_of(record) if record else None


def latest_recipe(ledger: Ledger, product: str, asset: str) -> str | None:
    """The recipe that this asset was last materialised with, None where it does not stand in the ledger."""
    record = read_json(ledger, _latest_key(product, asset))
    return record.get("recipe") if record else None


def save_latest(ledger: Ledger, asset: str, record: Record) -> None:
    """Point to an asset's record, unless what stands there was planned later: a run that began earlier may end last.

    A clock that was set back leaves records of the future. They hold nothing up: else no run would be the latest for as
    long as it had been set back.
    """

    def change(present: Record | None) -> Record | None:
        return None if present and record["planned"] < present["planned"] <= time.time() else record

    update_json(ledger, _latest_key(record["product"], asset), change)


def _latest_key(product: str, asset: str) -> str:
    return product_key(product, "latest", f"{asset}.json")


class PointerIOManager(dg.ConfigurableIOManager):
    """Hands small JSON records from op to op through the ledger.

    All records of a run stand in one value of it, so that two runs side by side do not see each other's. An asset that
    the run does not make comes in as {"asset": name}: which artefact that is follows from the recipe, not from what was
    materialised last, by whomever and with whatever recipe; `phi3_assets.ops.planning` looks it up.
    """

    store: dg.ResourceDependency[ArtifactStore]

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Keep an op's output under its run, and an asset's also as its latest."""
        run_id, *name = context.get_identifier()
        key = "/".join(name)
        update_json(self.store.ledger, run_key(f"{run_id}.json"), lambda kept: {**(kept or {}), key: obj})
        if context.has_asset_key:
            save_latest(self.store.ledger, context.asset_key.to_user_string(), obj)

    def load_input(self, context: dg.InputContext) -> Any:
        """What this run's upstream wrote; of an asset that is not in the run, its name."""
        upstream = context.upstream_output
        assert upstream is not None
        run_id, *name = upstream.get_identifier()
        kept = read_json(self.store.ledger, run_key(f"{run_id}.json")) or {}
        if (key := "/".join(name)) in kept:
            return kept[key]
        assert context.has_asset_key, f"{key} of run {run_id} is not in the ledger"
        return {"asset": context.asset_key.to_user_string()}
