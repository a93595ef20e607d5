"""The rules of release_bundle: what must hold before anybody takes it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.finding import Finding
from phi3_assets.core.manifest import digest_of
from phi3_assets.core.recipe import Recipe
from phi3_assets.release.bundle import RELEASE, files_of, read_release
from phi3_assets.release.measured import BundleMetrics

MODEL = "model/"
"""Folder of the bundle that the int4 model is in."""


def judge_bundle(metrics: Mapping[str, Any], directory: Path, recipe: Recipe) -> list[Finding]:
    """Its smoke test passed where it was made, and the model in it is the one that was scored."""
    return [_smoke_test_passes(BundleMetrics.from_dict(metrics)), _is_what_was_scored(directory)]


def was_tried(metrics: Mapping[str, Any]) -> bool:
    """Whether the model was asked anything where the bundle was made."""
    return BundleMetrics.from_dict(metrics).smoke_questions > 0


def answers_are_the_reports(metrics: Mapping[str, Any]) -> Finding:
    """Asked again, it answers as in the evaluation. Rounding differs between processors, so this holds nothing back."""
    bundle = BundleMetrics.from_dict(metrics)
    asked, same = bundle.smoke_questions, bundle.smoke_same_answers
    return Finding(
        "answers_are_the_reports",
        0 < asked == same,
        f"{same} of {asked} answers are those of eval_report, token for token."
        if asked
        else "Not tried: it is for a GPU, and the machine that made it had none.",
        {"asked": asked, "same": same},
    )


def _smoke_test_passes(bundle: BundleMetrics) -> Finding:
    asked = bundle.smoke_questions
    speed = f", {bundle.smoke_tokens_per_s:.1f} tokens/s" if bundle.smoke_tokens_per_s is not None else ""
    told = f"{asked} questions asked where it was made{speed}" if asked else "Not tried where it was made: no GPU there"
    return Finding(
        "smoke_test_passes",
        not bundle.smoke_faults,
        f"{told}: {'; '.join(bundle.smoke_faults) or 'no fault'}. On the device: python smoke_test.py.",
        {"smoke_questions": asked, "smoke_faults": len(bundle.smoke_faults)},
    )


def _is_what_was_scored(directory: Path) -> Finding:
    release = read_release(directory)
    entries = files_of(release, directory / RELEASE)
    digest = digest_of({name.removeprefix(MODEL): one for name, one in entries.items() if name.startswith(MODEL)})
    scored = str(release["made_of"].get("onnx_int4_model", ""))
    return Finding(
        "bundle_is_what_was_scored",
        digest == scored,
        f"The model in the bundle has the digest {digest[:16]}, and the one that was scored "
        f"{scored[:16] or 'is not named'}.",
    )
