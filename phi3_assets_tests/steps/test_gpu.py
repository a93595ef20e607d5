"""The steps on a GPU (`pytest -m gpu`), each beside its twin on the CPU, which runs where there is no GPU.

A step takes the GPU of its machine, so on each machine one of the two runs; the other says why it does not.
"""

from pathlib import Path
from typing import Any

import onnxruntime_genai
import pytest
import torch

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation import torch_scorer
from phi3_assets.evaluation.items import load_items
from phi3_assets.steps import LORA_ADAPTER, ONNX_INT4_MODEL
from phi3_assets.training.replay import count_texts, write_texts
from phi3_assets_tests.steps.conftest import Chain, Made, RunStep
from phi3_assets_tests.steps.killing_recovery import FIELDS

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
MOST_NATS = 2e-3
"""How far the NLL of an answer in float32 may be from the CPU's: kernels add up in another order."""


def on_gpu(*values: Any, count: int = 1) -> Any:
    """A case for machines with so many GPUs."""
    why = f"needs {count} GPUs, and torch sees {GPUS}"
    return pytest.param("cuda", *values, marks=[pytest.mark.gpu, pytest.mark.skipif(count > GPUS, reason=why)])


def on_cpu(*values: Any) -> Any:
    """Its twin."""
    why = "a step takes the GPU of this machine"
    return pytest.param("cpu", *values, marks=pytest.mark.skipif(GPUS > 0, reason=why))


def check_where_it_was(metrics: dict[str, Any], device: str) -> None:
    assert metrics["device"] == (torch.cuda.get_device_name() if device == "cuda" else "cpu")
    assert metrics["peak_memory_bytes"] > 0
    if device == "cuda":  # the device's own memory: the host's, with all libraries, is a gigabyte more
        assert metrics["peak_memory_bytes"] == torch.cuda.max_memory_allocated()


@pytest.mark.parametrize(
    ("device", "method"), [on_cpu("lora"), on_cpu("qlora"), on_gpu("lora"), on_gpu("dora"), on_gpu("qlora")]
)
def test_an_adapter_is_trained(device: str, method: str, inputs: dict[str, Path], run_step: RunStep) -> None:
    made = run_step(LORA_ADAPTER, inputs, method=method, compute_dtype="float32", max_steps=4)
    check_where_it_was(made.metrics, device)
    assert made.metrics["final_loss"] < made.metrics["first_loss"]
    assert made.metrics["tokens_per_s"] > 0


@pytest.mark.parametrize("device", [on_cpu(), on_gpu()])
def test_bfloat16_learns_about_what_float32_does(device: str, inputs: dict[str, Path], run_step: RunStep) -> None:
    exact, half = (run_step(LORA_ADAPTER, inputs, torch_dtype=one) for one in ("float32", "bfloat16"))
    assert half.metrics["final_loss"] == pytest.approx(exact.metrics["final_loss"], rel=0.1)


@pytest.mark.parametrize("device", [on_gpu(count=2)])
def test_two_gpus_train_as_one(device: str, inputs: dict[str, Path], run_step: RunStep) -> None:
    """Its twin is test_together, with two processes on one CPU."""
    alone, both = (run_step(LORA_ADAPTER, inputs, processes=processes) for processes in (1, 2))
    assert both.metrics["final_loss"] == pytest.approx(alone.metrics["final_loss"], rel=1e-3)


@pytest.mark.parametrize("device", [on_cpu(), on_gpu()])
def test_the_base_model_writes(device: str, tiny_base: Made, tmp_path: Path) -> None:
    write_texts(tiny_base.path, 3, 0, "float32", tmp_path / "texts")
    assert count_texts(tmp_path / "texts") == 3


@pytest.mark.parametrize("device", [on_cpu(), on_gpu()])
def test_scores_are_those_of_the_cpu(device: str, tiny_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    items = load_items(tiny_chain.formatted_corpus / "test.jsonl")
    here = torch_scorer.load_model(tiny_chain.base_model, tiny_chain.lora_adapter)
    assert here.device.type == device
    found = torch_scorer.score(here, items, [here.config.eos_token_id], 16)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = torch_scorer.load_model(tiny_chain.base_model, tiny_chain.lora_adapter)
    wanted = torch_scorer.score(plain, items, [plain.config.eos_token_id], 16)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.nll == pytest.approx(theirs.nll, abs=MOST_NATS)


@pytest.mark.parametrize("device", [on_gpu()])
def test_int4_recovers(device: str, tiny_chain: Chain, run_step: RunStep) -> None:
    """Its twin is test_recovery."""
    made = run_step(ONNX_INT4_MODEL, tiny_chain.inputs("merged_model", "formatted_corpus"), **FIELDS)
    assert made.metrics["recovery_divergence_after"] < 0.7 * made.metrics["recovery_divergence_before"]
    assert made.metrics["recovery_peak_memory_bytes"] <= torch.cuda.max_memory_allocated()


@pytest.mark.parametrize("device", [on_gpu()])
def test_int4_for_cuda_runs(device: str, tiny_chain: Chain, run_step: RunStep) -> None:
    if not onnxruntime_genai.is_cuda_available():
        pytest.skip("the build of ONNX Runtime GenAI here is for CPUs: put onnxruntime-genai-cuda in its place")
    made = run_step(ONNX_INT4_MODEL, tiny_chain.inputs("merged_model"), execution_provider="cuda")
    assert made.metrics["provider"] == "cuda"
    assert made.metrics["generated_tokens"] > 0


@pytest.mark.skipif(onnxruntime_genai.is_cuda_available(), reason="ONNX Runtime GenAI finds CUDA here")
def test_int4_for_cuda_is_refused_where_it_cannot_run(tiny_chain: Chain, run_step: RunStep) -> None:
    """It passed with no token generated, after all the time that quantising takes, and then could not be scored."""
    with pytest.raises(UserError, match=r"pip install --no-deps onnxruntime-genai-cuda==[0-9.]+\. Without one, set"):
        run_step(ONNX_INT4_MODEL, tiny_chain.inputs("merged_model"), execution_provider="cuda")
