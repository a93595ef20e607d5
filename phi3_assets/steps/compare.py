"""champion_comparison: the int4 models of a candidate, the champion and earlier champions, on the candidate's test set.

No asset of its own: the asset champion has it made when it decides. All models are scored by one process on one
machine, so that what differs is the models. What this machine scored before is not scored again.

Inputs are formatted_corpus and base_model, for the questions, and an onnx_int4_model for each model: `int4`,
`champion`, and any other name for an earlier champion.

What it writes:
    scores.json    quality and size of each model, and the machine
    items.jsonl    a line per item: prompt, reference, and each model's answer and quality
    speed.json     speed of candidate and champion, measured now and one after the other
"""

import json
import time
from dataclasses import replace
from typing import Any

from phi3_assets.core.files import write_report
from phi3_assets.core.machine import machine
from phi3_assets.core.manifest import artefact_files
from phi3_assets.core.step import StepContext
from phi3_assets.evaluation import metrics
from phi3_assets.evaluation.general import load_general
from phi3_assets.evaluation.int4_scores import asks_alike, in_own_tokens
from phi3_assets.evaluation.items import RawScore, by_hash, load_items, test_set_digest
from phi3_assets.evaluation.kept_scores import KeptScores
from phi3_assets.evaluation.side_by_side import CANDIDATE, CHAMPION
from phi3_assets.steps.scoring import Scoring, check_lengths, context_tokens, load_tokenizer


def compare_with_champion(ctx: StepContext) -> dict[str, Any]:
    """Score all models side by side; see the module for what is left in the output.

    Raises:
        UserError: A champion on another base model cannot be put the same questions.
    """
    started = time.perf_counter()
    base_model = ctx.inputs["base_model"]
    items = by_hash(load_items(ctx.inputs["formatted_corpus"] / "test.jsonl"), ctx.params["test_items"])
    max_new_tokens: int = ctx.params["max_new_tokens"]
    check_lengths(items, base_model, max_new_tokens)
    tokenizer = load_tokenizer(base_model)
    suite = load_general(tokenizer, context_tokens(base_model))
    kept = KeptScores(ctx.cache, ctx.log)
    records = [metrics.new_record(item) for item in items]
    models = {name: path for name, path in ctx.inputs.items() if name not in ("formatted_corpus", "base_model")}
    numbers: dict[str, dict[str, Any]] = {}
    speeds: dict[str, dict[str, Any]] = {}
    for place, (name, folder) in enumerate(models.items()):
        own_items, own_suite = items, suite
        own_tokenizer = load_tokenizer(folder)
        if not asks_alike(folder, own_tokenizer, items):
            own_items = in_own_tokens(folder, own_tokenizer, items)
            own_suite = load_general(own_tokenizer, context_tokens(base_model))
        scoring = Scoring(kept, own_items, own_suite, max_new_tokens, ctx.log)
        if name in (CANDIDATE, CHAMPION):
            speeds[name] = scoring.int4_speed(folder).to_dict()
        found, was_known = scoring.int4(folder)
        for record, own, score in zip(records, own_items, found.raw, strict=True):
            answer = own_tokenizer.decode(list(score.generated_ids), skip_special_tokens=True).strip()
            scaled = _in_unit(score, len(own.answer_ids) / record["reference_tokens"])
            record["variants"][name] = metrics.judge(name, record, scaled, answer)
        general = {**found.general, "general_nll": found.general["general_nll"] * own_suite.tokens / suite.tokens}
        size = sum((folder / relative).stat().st_size for relative in artefact_files(folder))
        numbers[name] = {**metrics.summarise(records, name), **general, "bytes": size}
        ctx.log(
            f"{name}: NLL {numbers[name]['nll']:.3f}, exact match {numbers[name]['exact_match']:.1%}"
            f"{', known from before' if was_known else ''}"
        )
        ctx.progress(fraction=(place + 1) / len(models))
    kept.prune()
    scores = {
        "items": len(items),
        "test_set": test_set_digest(items),
        "machine": machine(),
        "max_new_tokens": max_new_tokens,
        "variants": numbers,
    }
    write_report(ctx.output / "scores.json", scores)
    write_report(ctx.output / "speed.json", {"variants": speeds})
    with (ctx.output / "items.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return {"items": len(items), "models": list(models), "seconds": round(time.perf_counter() - started, 2)}


def _in_unit(score: RawScore, tokens: float) -> RawScore:
    """Nats per token of the candidate's, of which a model's own token is `tokens`: one answer, one unit."""
    other = None if score.other_nll is None else score.other_nll * tokens
    return replace(score, nll=score.nll * tokens, other_nll=other)
