"""Asset checks of the models: what was measured is judged where it stands, and holds back what must not travel on."""

from dataclasses import replace

import dagster as dg

from phi3_assets.assets.evaluation import release_bundle
from phi3_assets.assets.model import base_model, lora_adapter, merged_model, onnx_int4_model
from phi3_assets.checks.results import findings, shown, together, warning
from phi3_assets.core.finding import Finding
from phi3_assets.ops.running import metrics_of
from phi3_assets.quantising import rules as int4_rules
from phi3_assets.release import rules as release_rules
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


@dg.asset_check(asset=merged_model, blocking=True)
def merged_is_base_plus_adapter(
    store: ArtifactStore, recipe: RecipeResource, merged_model: Record
) -> dg.AssetCheckResult:
    """The merged model is the base model and what the adapter changes, within rounding, in every layer."""
    return shown(findings(store, recipe, merged_model)["merged_is_base_plus_adapter"])


def int4_runs(store: ArtifactStore, recipe: RecipeResource, onnx_int4_model: Record) -> dg.AssetCheckResult:
    """The int4 model generated text in ONNX Runtime GenAI."""
    return shown(findings(store, recipe, onnx_int4_model)["int4_runs"])


def recovery_helped(store: ArtifactStore, recipe: RecipeResource, onnx_int4_model: Record) -> dg.AssetCheckResult:
    """Recovery brought the int4 model nearer to the merged one."""
    return _told(int4_rules.recovery_helped(metrics_of(store, recipe, onnx_int4_model)))


def smoke_test_passes(store: ArtifactStore, recipe: RecipeResource, release_bundle: Record) -> dg.AssetCheckResult:
    """Asked as a device asks, the model in the bundle gets the prompts of the training and ends its answers.

    A warning where the machine had no GPU to try it on.
    """
    finding = findings(store, recipe, release_bundle)["smoke_test_passes"]
    # What could not be tried did not fail, so it holds nothing back; but it is not shown as if it had passed.
    tried = release_rules.was_tried(metrics_of(store, recipe, release_bundle))
    return shown(finding) if tried or not finding.passed else _told(replace(finding, passed=False))


def bundle_is_what_was_scored(
    store: ArtifactStore, recipe: RecipeResource, release_bundle: Record
) -> dg.AssetCheckResult:
    """The model in the bundle is, file by file, the int4 model that eval_report is about."""
    return shown(findings(store, recipe, release_bundle)["bundle_is_what_was_scored"])


def answers_are_the_reports(
    store: ArtifactStore, recipe: RecipeResource, release_bundle: Record
) -> dg.AssetCheckResult:
    """Asked again, the model in the bundle answers token for token as in eval_report."""
    return _told(release_rules.answers_are_the_reports(metrics_of(store, recipe, release_bundle)))


def _told(finding: Finding) -> dg.AssetCheckResult:
    """A warning at most."""
    return warning(finding.passed, finding.sentence, **finding.numbers)


int4_is_sound = together("int4_is_sound", onnx_int4_model, blocks=(int4_runs,), tells=(recovery_helped,))
bundle_is_sound = together(
    "bundle_is_sound",
    release_bundle,
    blocks=(smoke_test_passes, bundle_is_what_was_scored),
    tells=(answers_are_the_reports,),
)

ALL = [layout_keeps_the_logits, adapter_is_not_inert, merged_is_base_plus_adapter, int4_is_sound, bundle_is_sound]
