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


def specs(asset: dg.AssetsDefinition, blocks: Sequence[Check], tells: Sequence[Check]) -> list[dg.AssetCheckSpec]:
    """The checks of an asset that one op makes: each op less is a row less in every run, red where an asset failed.

    Args:
        asset: The asset.
        blocks: Those that hold back what is made of it.
        tells: Those that warn.
    """
    return [
        dg.AssetCheckSpec(one.__name__, asset=asset, blocking=one in blocks, description=one.__doc__)
        for one in (*blocks, *tells)
    ]


def results(
    checks: Sequence[Check], store: ArtifactStore, recipe: RecipeResource, record: Record
) -> Iterator[dg.AssetCheckResult]:
    """What they find."""
    for one in checks:
        yield one(store, recipe, record)._replace(check_name=one.__name__)
