"""Asset checks: they judge the numbers that a step measured, and block where a bad artefact must not travel on."""

import math
from typing import Any

import dagster as dg

from phi3_assets.assets.data import formatted_corpus, raw_dataset
from phi3_assets.assets.evaluation import eval_report
from phi3_assets.assets.model import base_model, lora_adapter
from phi3_assets.manifest import ArtefactRef
from phi3_assets.ops import Record
from phi3_assets.resources.artifacts import ArtifactStore


def _metrics(store: ArtifactStore, pointer: Record) -> dict[str, Any]:
    ref = ArtefactRef(**pointer)
    manifest = store.find(ref.kind, ref.identity)
    if manifest is None:
        raise dg.Failure(f"{ref.kind} is gone from the store; materialise it again.", allow_retries=False)
    return manifest.metrics


def _result(passed: bool, description: str, **metadata: Any) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=bool(passed), description=description, metadata=metadata)


@dg.asset_check(asset=raw_dataset, blocking=True)
def every_row_is_accounted_for(store: ArtifactStore, raw_dataset: Record) -> dg.AssetCheckResult:
    """Rows read = rows kept + rows in quarantine."""
    metrics = _metrics(store, raw_dataset)
    read, kept, quarantined = (metrics[name] for name in ("rows_read", "rows_kept", "rows_quarantined"))
    return _result(
        read == kept + quarantined and kept > 0,
        f"{read} rows read, {kept} kept, {quarantined} in quarantine.",
        rows_read=read,
        rows_kept=kept,
        rows_quarantined=quarantined,
    )


@dg.asset_check(asset=formatted_corpus, blocking=True)
def answers_are_learnt_to_the_end(store: ArtifactStore, formatted_corpus: Record) -> dg.AssetCheckResult:
    """Every training row has learnt tokens, and the end token is among them; else the model never stops."""
    metrics = _metrics(store, formatted_corpus)
    masked, endless = metrics["rows_fully_masked"], metrics["rows_without_end_token"]
    return _result(
        masked == 0 and endless == 0 and metrics["train_rows"] > 0,
        f"{metrics['train_rows']} training rows; {masked} learn nothing, {endless} do not learn the end token; "
        f"{metrics['supervised_share']:.0%} of the tokens are learnt.",
        rows_fully_masked=masked,
        rows_without_end_token=endless,
        supervised_tokens=metrics["supervised_tokens"],
    )


@dg.asset_check(asset=formatted_corpus, blocking=True)
def test_rows_are_not_trained_on(store: ArtifactStore, formatted_corpus: Record) -> dg.AssetCheckResult:
    """No question of the test set stands among the training rows; else the scores would be of memory."""
    metrics = _metrics(store, formatted_corpus)
    return _result(
        metrics["train_test_overlap"] == 0 and metrics["test_rows"] > 0,
        f"{metrics['test_rows']} test rows, {metrics['train_test_overlap']} of them also in training.",
        test_rows=metrics["test_rows"],
        train_test_overlap=metrics["train_test_overlap"],
    )


@dg.asset_check(asset=base_model, blocking=True)
def layout_keeps_the_logits(store: ArtifactStore, base_model: Record) -> dg.AssetCheckResult:
    """A model laid out anew as Phi-3 answers exactly as its source does."""
    difference = _metrics(store, base_model).get("max_logit_difference")
    if difference is None:
        return _result(True, "The weights are the source's own; nothing was laid out anew.")
    return _result(
        difference <= 1e-4, f"Largest difference of a logit: {difference:g}.", max_logit_difference=difference
    )


@dg.asset_check(asset=lora_adapter, blocking=True)
def adapter_is_not_inert(store: ArtifactStore, lora_adapter: Record) -> dg.AssetCheckResult:
    """Training moved the adapter: its loss is finite and its B matrices, zero at first, are not zero."""
    metrics = _metrics(store, lora_adapter)
    norm, loss = metrics["b_norm_min"], metrics["final_loss"]
    return _result(
        math.isfinite(loss) and norm > 0,
        f"Smallest norm of {metrics['b_matrices']} B matrices: {norm:.3g}; "
        f"loss from {metrics['first_loss']:.3g} to {loss:.3g}.",
        b_norm_min=norm,
        final_loss=loss,
    )


@dg.asset_check(asset=eval_report, blocking=True)
def every_variant_beats_base(store: ArtifactStore, eval_report: Record) -> dg.AssetCheckResult:
    """Adapter, merged and int4 each find the held-out answers more likely than the base model does."""
    metrics = _metrics(store, eval_report)
    nll = {name: scores["nll"] for name, scores in metrics["variants"].items()}
    worse = [name for name in ("adapter", "merged", "int4") if not nll[name] < nll["base"]]
    return _result(
        not worse,
        f"{', '.join(worse)} no better than base on {metrics['items']} held-out questions: the release is held back."
        if worse
        else f"All three beat base on {metrics['items']} held-out questions; int4 keeps "
        f"{metrics['int4_gain_kept']:.1%} of merged's gain.",
        **{f"nll_{name}": value for name, value in nll.items()},
    )


ALL = [
    every_row_is_accounted_for,
    answers_are_learnt_to_the_end,
    test_rows_are_not_trained_on,
    layout_keeps_the_logits,
    adapter_is_not_inert,
    every_variant_beats_base,
]
