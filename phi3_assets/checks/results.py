"""How a check answers."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg

from phi3_assets.core.finding import Finding
from phi3_assets.ops.planning import judge
from phi3_assets.ops.running import artefact_of
from phi3_assets.resources.execution import readable_errors
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


def findings(store: ArtifactStore, recipe: RecipeResource, record: Record) -> dict[str, Finding]:
    """What the blocking rules say of an artefact, by rule."""
    ref = artefact_of(store, recipe, record)
    with readable_errors():
        return {finding.rule: finding for finding in judge(store, ref, recipe.load())}


def shown(finding: Finding, **metadata: Any) -> dg.AssetCheckResult:
    """A finding as the result of the check of its name."""
    return dg.AssetCheckResult(
        check_name=finding.rule,
        passed=finding.passed,
        description=finding.sentence,
        metadata={**finding.numbers, **metadata},
    )


def warning(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    """A check that tells, and holds nothing back."""
    return dg.AssetCheckResult(
        passed=bool(passed), severity=dg.AssetCheckSeverity.WARN, description=description, metadata=metadata
    )


Check = Callable[[ArtifactStore, RecipeResource, Record], dg.AssetCheckResult]
"""One check of an asset that has several; its name and docstring are the check's."""


def together(
    name: str, asset: dg.AssetsDefinition, blocks: Sequence[Check], tells: Sequence[Check]
) -> dg.AssetChecksDefinition:
    """The checks of an asset, made by one op: each op less is a row less in every run, red where an asset failed.

    Args:
        name: Of the op.
        asset: The asset.
        blocks: Those that hold back what is made of it.
        tells: Those that warn.
    """
    every = (*blocks, *tells)
    specs = [
        dg.AssetCheckSpec(one.__name__, asset=asset, blocking=one in blocks, description=one.__doc__) for one in every
    ]

    description = f"Asks all that is checked of {asset.key.to_user_string()}."

    @dg.multi_asset_check(name=name, specs=specs, description=description, ins={"record": dg.AssetIn(asset.key)})
    def ask(store: ArtifactStore, recipe: RecipeResource, record: Record) -> Iterator[dg.AssetCheckResult]:
        for one in every:
            yield one(store, recipe, record)._replace(check_name=one.__name__)

    return ask
