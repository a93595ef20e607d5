"""Asset checks of the models: they hold back what must not travel on."""

import dagster as dg

from phi3_assets.assets.model import base_model, lora_adapter
from phi3_assets.checks.results import findings, shown
from phi3_assets.resources.pointers import Record
from phi3_assets.resources.recipe import RecipeResource
from phi3_assets.resources.store import ArtifactStore


@dg.asset_check(asset=base_model, blocking=True)
def layout_keeps_the_logits(store: ArtifactStore, recipe: RecipeResource, base_model: Record) -> dg.AssetCheckResult:
    """A model laid out anew as Phi-3 answers exactly as its source does."""
    return shown(findings(store, recipe, base_model)["layout_keeps_the_logits"])


@dg.asset_check(asset=lora_adapter, blocking=True)
def adapter_is_not_inert(store: ArtifactStore, recipe: RecipeResource, lora_adapter: Record) -> dg.AssetCheckResult:
    """Training moved the adapter: its loss is finite and its B matrices, zero at first, are not zero."""
    return shown(findings(store, recipe, lora_adapter)["adapter_is_not_inert"])


ALL = [layout_keeps_the_logits, adapter_is_not_inert]
