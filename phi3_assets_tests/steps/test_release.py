"""The release step, the bundle it makes, and how a damaged bundle is caught."""

import json
import shutil
import subprocess
import sys

import pytest

from phi3_assets.core.errors import DamagedArtefact, UserError
from phi3_assets.core.files import hash_files
from phi3_assets.core.manifest import Manifest
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepCall, StepContext
from phi3_assets.evaluation import VARIANTS
from phi3_assets.evaluation.fitness import RULES
from phi3_assets.evaluation.gate import read_evaluation
from phi3_assets.quantising.measured import Int4Metrics
from phi3_assets.release.bundle import verify_bundle
from phi3_assets.steps import ONNX_INT4_MODEL, RELEASE_BUNDLE
from phi3_assets.steps.evaluate import evaluate_variants
from phi3_assets.steps.release import bundle_release

METRICS = Int4Metrics(
    bytes=90_000_000,
    model_bytes=79_300_000,
    files=8,
    build_seconds=1.0,
    block_size=64,
    algorithm="gptq",
    symmetric=False,
    accuracy_level=4,
    provider="cpu",
    eos_token_ids=[2],
    max_length=512,
    generated_tokens=4,
).to_dict()
PARAMS = RELEASE_BUNDLE.params(load_recipe("tiny-test"))
pytest_plugins = ["phi3_assets_tests.evaluation.tiny"]


@pytest.fixture(scope="module")
def inputs(context_for, chain):
    ctx = context_for()
    evaluate_variants(ctx)
    pretend_it_learnt(ctx.output)
    return {"base_model": chain["base_model"], "onnx_int4_model": chain["onnx_int4_model"], "eval_report": ctx.output}


def pretend_it_learnt(report):
    """The chain's adapter is random; the gate would not let it become a release."""
    scores, records = read_evaluation(report)
    for name in VARIANTS[1:]:
        for record in records:
            record["variants"][name]["nll"] = record["variants"]["base"]["nll"] / 2
        scores["variants"][name]["nll"] = scores["variants"]["base"]["nll"] / 2
    scores["int4_gain_kept"] = 1.0
    (report / "scores.json").write_text(json.dumps(scores))
    (report / "items.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def release(inputs, tmp_path):
    def make(name="bundle"):
        output = tmp_path / name
        output.mkdir()
        ctx = StepContext(params=PARAMS, inputs=inputs, output=output, work=tmp_path, cache=tmp_path)
        return output, bundle_release(ctx)

    return make


def test_bundle_holds_all_a_device_needs(release, chain):
    bundle, metrics = release()
    for name in (
        "LICENSE",
        "MODEL_CARD.md",
        "scores.json",
        "smoke.json",
        "smoke_test.py",
        "sbom.cdx.json",
        "release.json",
    ):
        assert (bundle / name).stat().st_size > 0, name
    for name in ("model.onnx", "genai_config.json", "tokenizer.json", "chat_template.jinja"):
        assert (bundle / "model" / name).exists(), name
    manifest = verify_bundle(bundle)
    assert metrics["digest"] == manifest["digest"]
    assert metrics["licence"] == "apache-2.0"
    assert metrics["files"] == sum(path.is_file() for path in bundle.rglob("*"))
    assert metrics["bytes"] == sum(entry["bytes"] for entry in manifest["files"].values())


def test_same_inputs_same_bundle_and_no_path_of_this_machine(release, tmp_path):
    first, _ = release("first")
    second, _ = release("second")
    assert hash_files(first) == hash_files(second)
    for path in first.glob("*.*"):
        assert str(tmp_path.parent) not in path.read_text(encoding="utf-8")


def test_bundle_and_store_share_no_file(release):
    """They were hard links: one byte overwritten in the bundle damaged the int4 model in the store too."""
    bundle, _ = release()
    assert [path for path in bundle.rglob("*") if path.is_file() and path.stat().st_nlink > 1] == []


def test_model_card_is_one_the_hub_accepts(release):
    from huggingface_hub import ModelCard

    bundle, _ = release()
    card = ModelCard.load(bundle / "MODEL_CARD.md")
    assert card.data.license == "apache-2.0"
    assert {result.metric_type for result in card.data.eval_results} == {"exact_match", "f1", "perplexity"}
    assert "| int4 (ONNX) |" in card.text


@pytest.mark.parametrize("recovery_steps", [None, 111])
def test_card_certifies_what_quantising_did(inputs, chain, tmp_path, recovery_steps):
    int4 = shutil.copytree(chain["onnx_int4_model"], tmp_path / "int4")
    learnt = {
        "recovery_steps": recovery_steps,
        "recovery_divergence_before": 0.5,
        "recovery_divergence_after": 0.03125,
        "recovery_largest_scale_change": 0.11,
        "recovery_learnt_numbers": 2_125_440,
        "recovery_seconds": 1.0,
        "recovery_peak_memory_bytes": 1,
        "recovery_estimated_memory_bytes": 1,
        "recovery_resumed_from_step": 0,
    }
    made = Manifest(
        call=StepCall(
            step="onnx_int4_model",
            code_version="4",
            params=ONNX_INT4_MODEL.params(load_recipe("smol-cpu")),
            inputs={},
            libraries={},
        ),
        files=hash_files(int4),
        metrics={**METRICS, **(learnt if recovery_steps else {})},
        ran={"cpu": "A processor"},
    )
    (int4 / "manifest.json").write_text(made.to_json())
    output = tmp_path / "bundle"
    output.mkdir()
    bundle_release(
        StepContext(
            params=PARAMS, inputs={**inputs, "onnx_int4_model": int4}, output=output, work=tmp_path, cache=tmp_path
        )
    )
    told = json.loads((output / "release.json").read_text())["certificate"]
    assert told[0] == "Graph and weights take 79.3 MB: gptq, blocks of 64, embeddings in 4 bits."
    assert "95 % interval" in told[1]
    assert told[-1] == "Quantised on A processor."
    assert ("2,125,440 scales and norms" in told[2]) == bool(recovery_steps)
    card = (output / "MODEL_CARD.md").read_text()
    assert all(f"- {sentence}" in card for sentence in told)


@pytest.mark.parametrize("name", ["model/model.onnx.data", "LICENSE", "scores.json", "smoke_test.py"])
def test_one_flipped_bit_is_caught(release, tmp_path, name):
    bundle = shutil.copytree(release()[0], tmp_path / "copy")
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    with pytest.raises(DamagedArtefact, match=f"{name} was changed"):
        verify_bundle(bundle)


def test_missing_and_added_files_are_caught(release):
    bundle, _ = release()
    (bundle / "LICENSE").unlink()
    (bundle / "more.txt").write_text("x")
    with pytest.raises(DamagedArtefact, match=r"LICENSE is missing; more\.txt is not part of the release"):
        verify_bundle(bundle)


def test_a_folder_that_is_no_bundle(tmp_path):
    with pytest.raises(UserError, match="is not a release bundle"):
        verify_bundle(tmp_path)


def test_smoke_test_runs_alone_and_notices_damage(release, tmp_path):
    """In a process that cannot import this package, as on a device."""
    bundle = shutil.copytree(release()[0], tmp_path / "device")
    command = [sys.executable, "-I", "-c", SHIELD, str(bundle / "smoke_test.py")]
    good = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "files: all as released" in good.stdout
    assert "answers token for token as evaluated: 3 of 3" in good.stdout
    with (bundle / "scores.json").open("a") as file:
        file.write(" ")
    bad = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert bad.returncode == 1
    assert "scores.json was changed" in bad.stdout


SHIELD = """
import runpy, sys
for name in ("phi3_assets", "torch", "transformers", "onnx", "dagster"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_scores_without_a_variant_are_not_released(inputs, tmp_path):
    report = shutil.copytree(inputs["eval_report"], tmp_path / "report")
    scores = json.loads((report / "scores.json").read_text())
    del scores["variants"]["merged"]
    (report / "scores.json").write_text(json.dumps(scores))
    output = tmp_path / "bundle"
    output.mkdir()
    ctx = StepContext(PARAMS, {**inputs, "eval_report": report}, output, tmp_path, tmp_path)
    with pytest.raises(UserError, match="Not fit for release: variant merged was not scored"):
        bundle_release(ctx)


def test_the_gate_s_findings_travel_with_the_bundle(release):
    bundle, _ = release()
    manifest = verify_bundle(bundle)
    assert {finding["rule"]: finding["passed"] for finding in manifest["findings"]} == dict.fromkeys(RULES, True)
    assert "The test set has 7 items, at least 2 are needed." in (bundle / "MODEL_CARD.md").read_text()


def test_what_is_not_fit_is_not_bundled_either(inputs, tmp_path):
    """The checks of eval_report hold nothing back when release_bundle is materialised alone."""
    (tmp_path / "bundle").mkdir()
    params = {**PARAMS, "gate_min_items": 20}
    with pytest.raises(UserError, match="Not fit for release: The test set has 7 items, a decision needs at least 20"):
        bundle_release(StepContext(params, inputs, tmp_path / "bundle", tmp_path, tmp_path))
    assert not list((tmp_path / "bundle").iterdir())
