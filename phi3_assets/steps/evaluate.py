"""eval_report: the four variants on identical items, as numbers, as a page and as a plot.

What it writes:
    scores.json    quality of each variant; the same to the last digit whenever it is made anew
    items.jsonl    a line per item: prompt, reference, and each variant's answer and quality
    speed.json     speed of each variant and where it was measured; differs from run to run
    scores.png     for the Dagster UI
    report.html    for people; self-contained
    harder.jsonl   as items.jsonl, for the recipe's harder questions if it has any; each with its kind
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.core.files import write_report
from phi3_assets.core.home import SHORT
from phi3_assets.core.machine import machine
from phi3_assets.core.manifest import MANIFEST, artefact_files, read_manifest
from phi3_assets.core.step import StepContext, installed_versions
from phi3_assets.evaluation import VARIANTS, metrics, plots, report, statistics
from phi3_assets.evaluation.general import load_general
from phi3_assets.evaluation.groups import groups_of
from phi3_assets.evaluation.harder import ALL, load_harder, summarise_harder
from phi3_assets.evaluation.items import Item, by_hash, load_items, test_set_digest
from phi3_assets.evaluation.kept_scores import KeptScores
from phi3_assets.evaluation.measured import EvaluationMetrics
from phi3_assets.evaluation.recall import references_in_training
from phi3_assets.models.end_tokens import end_token_ids
from phi3_assets.steps import EVAL_REPORT, HARDER
from phi3_assets.steps.scoring import Scoring, check_lengths, context_tokens, load_tokenizer


def evaluate_variants(ctx: StepContext) -> dict[str, Any]:
    """Score base, adapter, merged and int4 on the test set and write the report.

    Raises:
        UserError: An empty test set, items longer than the model's context, a likelihood that is no number, or more
            memory needed than there is.
    """
    started = time.perf_counter()
    test_set = load_items(ctx.inputs["formatted_corpus"] / "test.jsonl")
    items = by_hash(test_set, ctx.params["test_items"])
    if len(items) < len(test_set):
        ctx.log(f"Asked are {len(items):,} of the test set's {len(test_set):,} items (test_items), chosen by a hash")
    max_new_tokens: int = ctx.params["max_new_tokens"]
    tokenizer = load_tokenizer(ctx.inputs["base_model"])
    harder = _harder(ctx, tokenizer, items)
    asked = [*items, *(item for _, item in harder)]
    check_lengths(asked, ctx.inputs["base_model"], max_new_tokens)
    suite = load_general(tokenizer, context_tokens(ctx.inputs["base_model"]))
    kept = KeptScores(ctx.cache, ctx.log)
    scoring = Scoring(kept, asked, suite, max_new_tokens, ctx.log)
    every = [metrics.new_record(item) for item in asked]
    records, harder_records = every[: len(items)], every[len(items) :]
    for (kind, _), record in zip(harder, harder_records, strict=True):
        record["kind"] = kind
    quality: dict[str, dict[str, float]] = {}
    speeds: dict[str, dict[str, float | None]] = {}
    devices: dict[str, str] = {}
    for place, variant in enumerate(VARIANTS):

        def tick(done: int, place: int = place) -> None:
            ctx.progress(fraction=round((place + done / len(asked)) / len(VARIANTS), 4))

        variant_started = time.perf_counter()
        found = scoring.score(variant, ctx.inputs, tick)
        result = found.scores
        for record, score in zip(every, result.raw, strict=True):
            answer = tokenizer.decode(list(score.generated_ids), skip_special_tokens=True).strip()
            record["variants"][variant] = metrics.judge(variant, record, score, answer)
        quality[variant] = {**metrics.summarise(records, variant), **result.general}
        if result.prompts_as_trained is not None:
            quality[variant]["prompts_as_trained"] = result.prompts_as_trained
        devices[variant] = found.device
        seconds = time.perf_counter() - variant_started
        speeds[variant] = {**found.speed.to_dict(), "seconds": round(seconds, 2)}
        ctx.log(
            f"{variant}: NLL {quality[variant]['nll']:.3f}, exact match {quality[variant]['exact_match']:.1%}, "
            f"{len(asked)} items in {seconds:.0f} s{', known from before' if found.known else ''}"
        )
    tick(len(asked))
    kept.prune()
    sizes = variant_bytes(ctx.inputs)
    scores: dict[str, Any] = {
        "items": len(items),
        "test_set_items": len(test_set),
        "groups": len(set(groups_of(records))),
        "references_in_training": references_in_training(ctx.inputs["formatted_corpus"], items),
        "harder": summarise_harder(harder_records, VARIANTS) if harder else None,
        "test_set": test_set_digest(items),
        "machine": machine(),
        "devices": devices,
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
    _write_lines(ctx.output / "items.jsonl", records)
    if harder:
        _write_lines(ctx.output / "harder.jsonl", harder_records)
    (ctx.output / "scores.png").write_bytes(plots.scores_png(scores["variants"], scores["intervals"]))
    page = report.render(
        scores=scores,
        table=table,
        records=records,
        harder=harder_records,
        history=history,
        identity=identity(ctx, scores),
    )
    (ctx.output / "report.html").write_text(page, encoding="utf-8")
    return EvaluationMetrics(
        variants=table,
        items=len(items),
        test_set=scores["test_set"],
        int4_gain_kept=scores["int4_gain_kept"],
        references_in_training=scores["references_in_training"],
        harder_exact_match=scores["harder"][ALL]["variants"]["int4"]["exact_match"] if harder else None,
        harder_preferred=scores["harder"][ALL]["variants"]["int4"]["preferred"] if harder else None,
        seconds=round(time.perf_counter() - started, 2),
        **scoring.memory.to_dict(),
    ).to_dict()


def _harder(ctx: StepContext, tokenizer: Any, items: Sequence[Item]) -> list[tuple[str, Item]]:
    """Kind and item of the harder questions, if the recipe has any."""
    folder = ctx.inputs.get(HARDER)
    return load_harder(folder, tokenizer, end_token_ids(ctx.inputs["base_model"]), items) if folder else []


def _write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


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
            ("items", f"{scores['items']:,} of {scores['test_set_items']:,}"),
            ("digest", scores["test_set"]),
        ],
        "Artefacts": [
            (name, f"identity {manifest.call.identity[:SHORT]}, content {manifest.digest[:SHORT]}")
            for name, manifest in manifests.items()
        ],
        "Machine": sorted(scores["machine"].items()),
        "Recipe": [(name, json.dumps(value, ensure_ascii=False)) for name, value in sorted(recipe.items())],
        "Software": sorted(installed_versions(EVAL_REPORT.libraries).items()),
    }
