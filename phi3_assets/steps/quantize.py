"""The step `onnx_int4_model`: quantise the merged model to int4 for ONNX Runtime GenAI with Olive's passes."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.step import StepContext, installed_version
from phi3_assets.models import environment, genai
from phi3_assets.models.directory import check_no_path, describe
from phi3_assets.models.end_tokens import end_token_ids, write_genai_end_tokens
from phi3_assets.olive import configs
from phi3_assets.olive.corpus import TRAIN_FILE
from phi3_assets.quantising.budget import budget_bytes
from phi3_assets.quantising.measured import Int4Metrics, RecoveredInt4Metrics
from phi3_assets.quantising.quantise import quantise
from phi3_assets.training.replay import REPLAY_FILE, count_texts

# Kernels of rotary GroupQueryAttention take no other sizes; such a model builds, then fails when it runs.
HEAD_SIZE_MULTIPLE = 16
PROOF_TOKENS = 4


def build_int4(ctx: StepContext) -> dict[str, Any]:
    """Fill `ctx.output` with model.onnx, its weights, tokenizer and genai_config.json.

    Returns:
        `Int4Metrics` as JSON; `RecoveredInt4Metrics` where it was recovered.

    Raises:
        UserError: The model cannot run in ONNX Runtime GenAI, or needs more memory or disk than there is.
        TransientError: Others had the memory.
        RuntimeError: The built model does not load or generate.
    """
    environment.prepare()
    merged, params = ctx.inputs["merged_model"], ctx.params
    _check_head_size(merged)
    provider = params["execution_provider"]
    _check_provider(provider)
    max_length = min(describe(merged).context_length, configs.MAX_LENGTH_TOKENS)
    started = time.monotonic()
    formatted_corpus = ctx.inputs.get("formatted_corpus")
    train_file = formatted_corpus / TRAIN_FILE if formatted_corpus else None
    recovered, memory = quantise(ctx, max_length, train_file, _replayed(ctx))
    shutil.rmtree(ctx.work)
    ctx.work.mkdir()
    seconds = time.monotonic() - started
    ends = end_token_ids(merged)
    write_genai_end_tokens(ctx.output / "genai_config.json", ends)
    check_no_path(ctx.output, merged, ctx.output, ctx.work)
    files = sorted(path for path in ctx.output.rglob("*") if path.is_file())
    model_bytes = sum(path.stat().st_size for path in files if path.name.startswith("model.onnx"))
    _check_budget(merged, params, model_bytes)
    generated = _generate(ctx.output)
    ctx.progress(fraction=1.0)
    kind = RecoveredInt4Metrics if recovered else Int4Metrics
    return kind(
        bytes=sum(path.stat().st_size for path in files),
        model_bytes=model_bytes,
        files=len(files),
        build_seconds=seconds,
        block_size=params["int4_block_size"],
        algorithm=params["int4_algorithm"],
        symmetric=params["int4_symmetric"],
        accuracy_level=params["int4_accuracy_level"],
        provider=provider,
        eos_token_ids=ends,
        max_length=max_length,
        generated_tokens=generated,
        **memory.to_dict(),
        **(recovered.to_dict() if recovered else {}),
    ).to_dict()


def _replayed(ctx: StepContext) -> Path | None:
    """The texts that lie beside an adapter that was trained with them."""
    adapter = ctx.inputs.get("lora_adapter")
    if ctx.params["int4_algorithm"] != "gptq" or adapter is None or not (adapter / REPLAY_FILE).is_file():
        return None
    texts = adapter / REPLAY_FILE
    ctx.log(f"{count_texts(texts)} texts that the base model wrote for the training are taken beside the corpus")
    return texts


def _check_head_size(model: Path) -> None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if head_size % HEAD_SIZE_MULTIPLE:
        raise UserError(
            f"The model's head size is {head_size}; ONNX Runtime's attention kernels need a multiple of "
            f"{HEAD_SIZE_MULTIPLE}. This base model cannot become an ONNX GenAI model."
        )


def _check_provider(provider: str) -> None:
    """What cannot run here could be neither tried nor scored."""
    import onnxruntime_genai as og

    if provider == "cuda" and not og.is_cuda_available():
        build = f"onnxruntime-genai-cuda=={installed_version('onnxruntime-genai')}"
        raise UserError(
            "execution_provider is cuda, and ONNX Runtime GenAI finds no CUDA on this machine, so the int4 model could "
            "not be tried here. With an NVIDIA GPU, put the build for it in the place of the one for CPUs: pip "
            f"uninstall onnxruntime-genai; pip install --no-deps {build}. Without one, set execution_provider: cpu."
        )


def _check_budget(merged: Path, params: Mapping[str, Any], model_bytes: int) -> None:
    """What was reckoned beforehand decided which layers got 8 bits; what counts is what came out."""
    limit = budget_bytes(merged, params)
    if limit and model_bytes > limit:
        raise UserError(
            f"Graph and weights came out at {model_bytes:,} bytes, and int4_budget {params['int4_budget']} is "
            f"{limit:,}: this model's graph is larger than reckoned. Lower int4_budget by as much, or raise it."
        )


def _generate(model: Path) -> int:
    """Load the model in ONNX Runtime GenAI and generate a few tokens; how many."""
    import onnxruntime_genai as og

    loaded = genai.load_model(model)
    prompt = og.Tokenizer(loaded).encode("The capital of France is")
    made = sum(1 for _ in genai.greedy(loaded, prompt, PROOF_TOKENS))
    if not made:
        raise RuntimeError("The int4 model loads in ONNX Runtime GenAI, but generates nothing.")
    return made
