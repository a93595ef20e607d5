"""Recovery: scales learn, integers stay, and the int4 model answers as the torch side says it would."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from phi3_assets.quantising import recovery
from phi3_assets.quantising.blocks import load_student
from phi3_assets.steps import ONNX_INT4_MODEL
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep

GPTQ = {"int4_algorithm": "gptq", "int4_symmetric": False}
STEPS = {**GPTQ, "int4_recovery_steps": 12}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the models before and after the recovery are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def recovered(tiny_chain: Chain, run_step: RunStep, kept: Path) -> Made:
    """A recovered int4 model; the directories that it was made of are copied to `kept` before they go."""
    import shutil

    real = recovery.write_learnt

    def write_and_keep(student: object, quantised: Path, target: Path) -> None:
        real(student, quantised, target)
        shutil.copytree(quantised, kept / "before")
        shutil.copytree(target, kept / "after")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "write_learnt", write_and_keep)
        return run_step(ONNX_INT4_MODEL, tiny_chain.inputs("merged_model", "formatted_corpus"), **STEPS)


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: one for path in sorted(directory.glob("*.safetensors")) for name, one in load_file(path).items()}


def test_scales_and_norms_move_and_integers_do_not(recovered: Made, kept: Path) -> None:
    before, after = tensors(kept / "before"), tensors(kept / "after")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.endswith(".scales") or "norm" in name}
    assert all(after[name].dtype == before[name].dtype for name in before)


def test_divergence_falls(recovered: Made) -> None:
    metrics = recovered.metrics
    assert metrics["recovery_steps"] == 12
    assert metrics["recovery_divergence_after"] < 0.7 * metrics["recovery_divergence_before"]
    assert 0 < metrics["recovery_largest_scale_change"] < 0.2
    assert [one["step"] for one in recovered.progress] == list(range(1, 13))
    assert recovered.progress[-1]["fraction"] == 1


def test_int4_answers_as_torch_predicts(recovered: Made, kept: Path, tiny_chain: Chain) -> None:
    import json

    import onnxruntime_genai as og

    student = load_student(kept / "after", torch.float32)
    loaded = og.Model(str(recovered.path))
    for line in (tiny_chain.formatted_corpus / "test.jsonl").read_text().splitlines():
        ids = json.loads(line)["prompt_ids"]
        generator = og.Generator(loaded, og.GeneratorParams(loaded))
        generator.append_tokens(ids)
        with torch.no_grad():
            wanted = student(input_ids=torch.tensor([ids])).logits[0].numpy()
        found = np.asarray(generator.get_output("logits")[0])
        assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
