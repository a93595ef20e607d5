"""release_bundle: everything an edge device takes, in one folder; `phi3_assets.release.bundle` says what it holds."""

import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import copy_file, hash_files, write_report
from phi3_assets.core.manifest import MANIFEST, Manifest, artefact_files, digest_of, read_manifest
from phi3_assets.core.recipe import is_hub_id
from phi3_assets.core.step import StepContext, installed_versions
from phi3_assets.evaluation import gate
from phi3_assets.evaluation.findings import Thresholds
from phi3_assets.models.genai import can_run
from phi3_assets.release import bundle, smoke_test
from phi3_assets.release.card import model_card
from phi3_assets.release.certificate import certificate
from phi3_assets.release.measured import BundleMetrics
from phi3_assets.release.sbom import SBOM, bill_of_materials
from phi3_assets.steps import RELEASE_BUNDLE

SMOKE_QUESTIONS = 3
RUNTIME = ("numpy", "onnxruntime", "onnxruntime-genai")
# First line or two of the licence texts that small language models come with, and the Hub's name for each.
LICENCES = {"apache license": "apache-2.0", "mit license": "mit", "gemma terms of use": "gemma", "llama": "llama"}


def bundle_release(ctx: StepContext) -> dict[str, Any]:
    """Lay the bundle out, verify it as a device would, and ask the model what its smoke test asks.

    Returns:
        `BundleMetrics` as JSON.

    Raises:
        UserError: The model is not fit for release. The checks of eval_report say so before; here it is asked again,
            since they hold nothing back when release_bundle is materialised alone.
    """
    scores, records = gate.read_evaluation(ctx.inputs["eval_report"])
    decision = gate.decide(scores, records, Thresholds.from_params(ctx.params))
    if not decision.fit:
        raise UserError(decision.sentence)
    place_model(ctx.inputs["onnx_int4_model"], ctx.output / "model")
    manifests = {name: read_manifest(path) for name, path in ctx.inputs.items() if (path / MANIFEST).exists()}
    base_manifest = manifests.get("base_model")
    licence, licence_file = place_licence(ctx.inputs["base_model"], ctx.output, base_manifest)
    shutil.copyfile(ctx.inputs["eval_report"] / "scores.json", ctx.output / "scores.json")
    shutil.copyfile(Path(bundle.__file__).with_name("smoke_test.py"), ctx.output / "smoke_test.py")
    smoke = smoke_questions(records, scores["max_new_tokens"])
    write_report(ctx.output / "smoke.json", smoke)
    origin = {name: manifest.digest for name, manifest in manifests.items()}
    versions = installed_versions(RELEASE_BUNDLE.libraries)
    base_model = base_model_name(base_manifest)
    int4 = manifests.get("onnx_int4_model")
    quantised = certificate(int4, scores) if int4 else []
    card = model_card(
        scores=scores,
        base_model=base_model,
        licence=licence,
        licence_file=licence_file,
        runtime=versions["onnxruntime-genai"],
        system_prompt=any(one["role"] == "system" for one in smoke["questions"][0]["messages"]),
        findings=[finding.sentence for finding in decision.findings],
        certificate=quantised,
        origin=origin,
    )
    (ctx.output / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    bill = bill_of_materials(
        name=f"{base_model}, fine-tuned, int4",
        digest=digest_of(hash_files(ctx.output)),
        base_model=base_model,
        base_digest=origin.get("base_model", ""),
        licence=licence,
        files=hash_files(ctx.output / "model"),
        runtime={name: versions[name] for name in RUNTIME},
        tools={name: text for one in manifests.values() for name, text in one.call.libraries.items()},
    )
    (ctx.output / SBOM).write_text(bill, encoding="utf-8")
    files = hash_files(ctx.output)
    digest = digest_of(files)
    write_report(
        ctx.output / bundle.RELEASE,
        {
            "format": bundle.FORMAT,
            "digest": digest,
            "base_model": base_model,
            "licence": licence,
            "runtime": {name: versions[name] for name in RUNTIME},
            "test_set": scores["test_set"],
            "findings": [asdict(finding) for finding in decision.findings],
            "certificate": quantised,
            "made_of": origin,
            "files": {path: asdict(entry) for path, entry in sorted(files.items())},
        },
    )
    bundle.verify_bundle(ctx.output)
    size = sum(entry.bytes for entry in files.values())
    ctx.log(f"bundle of {len(files) + 1} files, {size / 1e6:.1f} MB, licence {licence}")
    asked = smoke_test.ask(ctx.output) if can_run(ctx.output / "model") else []
    speed = sum(one["tokens"] for one in asked) / sum(one["seconds"] for one in asked) if asked else None
    return BundleMetrics(
        bytes=size,
        files=len(files) + 1,
        digest=digest,
        licence=licence,
        base_model=base_model,
        smoke_questions=len(asked),
        smoke_faults=sorted({fault for one in asked for fault in one["faults"]}),
        smoke_same_answers=sum(one["same"] for one in asked),
        smoke_tokens_per_s=speed,
    ).to_dict()


def place_model(source: Path, target: Path) -> None:
    """Copy the GenAI folder into the bundle; 0.2 GB take a fifth of a second, or nothing where blocks are shared."""
    for relative in artefact_files(source):
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        copy_file(source / relative, path)


def place_licence(base_model: Path, target: Path, manifest: Manifest | None) -> tuple[str, str | None]:
    """Copy the base model's licence text, and its notices.

    Returns:
        The licence's name on the Hugging Face Hub ("other" if the text is not recognised, "unknown" without one), and
        the name of the text's file in the bundle.
    """
    for path in sorted(base_model.glob("NOTICE*")):
        shutil.copyfile(path, target / path.name)
    texts = sorted(base_model.glob("LICEN[CS]E*"))
    for path in texts:
        shutil.copyfile(path, target / path.name)
    declared = str(manifest.metrics.get("licence", "")).lower() if manifest else ""
    if re.fullmatch(r"[a-z0-9.+-]+", declared) and declared != "unknown":
        return declared, texts[0].name if texts else None
    if not texts:
        return "unknown", None
    head = texts[0].read_text(encoding="utf-8", errors="replace")[:300].lower()
    return next((name for words, name in LICENCES.items() if words in head), "other"), texts[0].name


def smoke_questions(records: list[dict[str, Any]], max_new_tokens: int) -> dict[str, Any]:
    """Questions for the smoke test: those int4 answered best, for they can be asked of a device again."""

    def rank(record: dict[str, Any]) -> tuple[bool, bool, float, float, str]:
        own = record["variants"]["int4"]
        return not own["stopped"], not own["answer"], -own["f1"], own["nll"], record["id"]

    questions = [
        {
            "messages": record["prompt"],
            "prompt_ids": record["prompt_ids"],
            "answer_ids": record["variants"]["int4"]["answer_ids"],
            "stopped": record["variants"]["int4"]["stopped"],
        }
        for record in sorted(records, key=rank)[:SMOKE_QUESTIONS]
    ]
    return {"max_new_tokens": max_new_tokens, "questions": questions}


def base_model_name(manifest: Manifest | None) -> str:
    """Where the base model came from, without the path of somebody's disk."""
    if manifest is None:
        return "base model"
    source: str = manifest.call.params["base_model"]
    return source if is_hub_id(source) or source.startswith(("pypi:", "random:")) else "a local model"
