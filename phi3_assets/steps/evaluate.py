"""eval_report: the four variants on identical items, as numbers, as a page and as a plot.

What it writes:
    scores.json    quality of each variant; the same to the last digit whenever it is made anew
    items.jsonl    a line per item: prompt, reference, and each variant's answer and quality
    speed.json     speed of each variant and where it was measured; differs from run to run
    scores.png     for the Dagster UI
    report.html    for people; self-contained
"""

import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.files import write_report
from phi3_assets.core.home import SHORT
from phi3_assets.core.manifest import MANIFEST, artefact_files, read_manifest
from phi3_assets.core.memory import forget_peak_memory
from phi3_assets.core.step import StepContext, installed_versions
from phi3_assets.evaluation import VARIANTS, genai_scorer, metrics, plots, report, statistics, torch_scorer
from phi3_assets.evaluation.general import GeneralSuite, load_general
from phi3_assets.evaluation.items import Item, RawScore, load_items, test_set_digest
from phi3_assets.evaluation.measured import EvaluationMetrics
from phi3_assets.evaluation.speed import Speed, measure_apart
from phi3_assets.models import genai
from phi3_assets.models.end_tokens import end_token_ids, genai_end_token_ids
from phi3_assets.steps import EVAL_REPORT

MODEL_INPUT = {
    "base": "base_model",
    "adapter": "base_model",
    "merged": "merged_model",
    "int4": "onnx_int4_model",
}


def evaluate_variants(ctx: StepContext) -> dict[str, Any]:
    """Score base, adapter, merged and int4 on the test set and write the report.

    Raises:
        UserError: An empty test set, items longer than the model's context, or a likelihood that is no number.
    """
    started = time.perf_counter()
    items = load_items(ctx.inputs["formatted_corpus"] / "test.jsonl")
    max_new_tokens: int = ctx.params["max_new_tokens"]
    check_lengths(items, ctx.inputs["base_model"], max_new_tokens)
    tokenizer = load_tokenizer(ctx.inputs["base_model"])
    suite = load_general(tokenizer, context_tokens(ctx.inputs["base_model"]))
    records = [metrics.new_record(item) for item in items]
    quality: dict[str, dict[str, float]] = {}
    speeds: dict[str, dict[str, float | None]] = {}
    for place, variant in enumerate(VARIANTS):

        def tick(done: int, place: int = place) -> None:
            ctx.progress(fraction=round((place + done / len(items)) / len(VARIANTS), 4))

        variant_started = time.perf_counter()
        result = score_variant(variant, ctx.inputs, items, suite, max_new_tokens, tick)
        for record, score in zip(records, result.raw, strict=True):
            answer = tokenizer.decode(list(score.generated_ids), skip_special_tokens=True).strip()
            record["variants"][variant] = metrics.judge(variant, record, score, answer)
        quality[variant] = {**metrics.summarise(records, variant), **result.general}
        if result.prompts_as_trained is not None:
            quality[variant]["prompts_as_trained"] = result.prompts_as_trained
        seconds = time.perf_counter() - variant_started
        speeds[variant] = {**result.speed.to_dict(), "seconds": round(seconds, 2)}
        ctx.log(
            f"{variant}: NLL {quality[variant]['nll']:.3f}, exact match {quality[variant]['exact_match']:.1%}, "
            f"{len(items)} items in {seconds:.0f} s"
        )
    sizes = variant_bytes(ctx.inputs)
    scores: dict[str, Any] = {
        "items": len(items),
        "test_set": test_set_digest(items),
        "max_new_tokens": max_new_tokens,
        "general": {"texts": len(suite.texts), "questions": len(suite.questions)},
        "int4_gain_kept": metrics.int4_gain_kept(quality),
        "intervals": statistics.intervals(records, VARIANTS),
        "comparisons": [comparison.to_dict() for comparison in statistics.compare_variants(records)],
        "variants": {name: {**quality[name], "bytes": sizes[name]} for name in VARIANTS},
    }
    table = {
        name: {
            **scores["variants"][name],
            **{key: value for key, value in speeds[name].items() if key != "seconds"},
        }
        for name in VARIANTS
    }
    history_file = ctx.inputs["lora_adapter"] / "history.json"
    history = json.loads(history_file.read_text(encoding="utf-8")) if history_file.exists() else []
    write_report(ctx.output / "scores.json", scores)
    write_report(ctx.output / "speed.json", {"variants": speeds})
    with (ctx.output / "items.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (ctx.output / "scores.png").write_bytes(plots.scores_png(scores["variants"], scores["intervals"]))
    page = report.render(
        scores=scores,
        table=table,
        records=records,
        history=history,
        identity=identity(ctx, scores),
    )
    (ctx.output / "report.html").write_text(page, encoding="utf-8")
    return EvaluationMetrics(
        variants=table,
        items=len(items),
        test_set=scores["test_set"],
        int4_gain_kept=scores["int4_gain_kept"],
        seconds=round(time.perf_counter() - started, 2),
    ).to_dict()


@dataclass(frozen=True)
class VariantResult:
    """What one variant did.

    Attributes:
        raw: Scores in the order of the items.
        speed: For one user.
        general: general_nll and general_right.
        prompts_as_trained: Share of prompts that the device's own tokenizer and template build as in training; None
            for variants that are only run here, on the tokens of the corpus.
    """

    raw: list[RawScore]
    speed: Speed
    general: dict[str, float]
    prompts_as_trained: float | None = None


def score_variant(
    variant: str,
    inputs: Mapping[str, Path],
    items: Sequence[Item],
    suite: GeneralSuite,
    max_new_tokens: int,
    tick: Callable[[int], None],
) -> VariantResult:
    """Load one variant, measure its speed, score it and free it.

    Raises:
        UserError: The variant's configuration names no end token.
    """
    folder = inputs[MODEL_INPUT[variant]]
    median = sorted((item.prompt_ids for item in items), key=len)[len(items) // 2]
    no_end = UserError(f"Variant {variant}: its configuration names no end token, so no answer could ever stop.")
    if variant == "int4":
        ends = genai_end_token_ids(folder)
        if not ends:
            raise no_end
        speed = measure_apart(folder, median)
        model = genai.load_model(folder)
        result = VariantResult(
            genai_scorer.score(model, items, ends, max_new_tokens, tick),
            speed,
            suite.summarise(genai_scorer.losses(model, suite.passages)),
            genai_scorer.prompts_as_trained(model, folder, items),
        )
    else:
        forget_peak_memory()
        model = torch_scorer.load_model(folder, inputs["lora_adapter"] if variant == "adapter" else None)
        ends = end_token_ids(folder)
        if not ends:
            raise no_end
        speed = torch_scorer.speed(model, median)
        result = VariantResult(
            torch_scorer.score(model, items, ends, max_new_tokens, tick),
            speed,
            suite.summarise(torch_scorer.losses(model, suite.passages)),
        )
    del model
    gc.collect()
    return result


def load_tokenizer(base_model: Path) -> Any:
    """The base model's own tokenizer, the same for all variants."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_model, local_files_only=True)


def context_tokens(base_model: Path) -> int:
    """Longest sequence that the model takes, in tokens."""
    config = json.loads((base_model / "config.json").read_text(encoding="utf-8"))
    return int(config["max_position_embeddings"])


def check_lengths(items: Sequence[Item], base_model: Path, max_new_tokens: int) -> None:
    """Refuse items that do not fit into the model's context.

    Raises:
        UserError: Names the first such item.
    """
    context = context_tokens(base_model)
    for item in items:
        needed = len(item.prompt_ids) + max(len(item.answer_ids), max_new_tokens)
        if needed > context:
            raise UserError(
                f"Test item {item.id} needs {needed} tokens (prompt {len(item.prompt_ids)}, answer "
                f"{len(item.answer_ids)}, max_new_tokens {max_new_tokens}); the model's context is {context}. "
                "Lower max_new_tokens or max_seq_len in the recipe."
            )


def variant_bytes(inputs: Mapping[str, Path]) -> dict[str, int]:
    """Bytes on disk of all that is needed to run each variant."""
    size = {
        name: sum((inputs[name] / relative).stat().st_size for relative in artefact_files(inputs[name]))
        for name in ("base_model", "lora_adapter", "merged_model", "onnx_int4_model")
    }
    return {
        "base": size["base_model"],
        "adapter": size["base_model"] + size["lora_adapter"],
        "merged": size["merged_model"],
        "int4": size["onnx_int4_model"],
    }


def identity(ctx: StepContext, scores: dict[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """What was evaluated, in groups of (name, text), for the foot of the report."""
    manifests = {name: read_manifest(path) for name, path in ctx.inputs.items() if (path / MANIFEST).exists()}
    recipe = {name: value for manifest in manifests.values() for name, value in manifest.call.params.items()}
    recipe |= ctx.params
    return {
        "Test set": [
            ("items", str(scores["items"])),
            ("digest", scores["test_set"]),
        ],
        "Artefacts": [
            (name, f"identity {manifest.call.identity[:SHORT]}, content {manifest.digest[:SHORT]}")
            for name, manifest in manifests.items()
        ],
        "Recipe": [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(recipe.items())],
        "Software": sorted(installed_versions(EVAL_REPORT.libraries).items()),
    }
