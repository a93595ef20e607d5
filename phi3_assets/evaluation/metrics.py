"""Numbers from answers: per item, and per variant over the whole test set."""

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.evaluation.items import Item, RawScore

NLL_DIGITS = 6  # float32 sums differ beyond that between machines; a report should not pretend otherwise


def judge_answer(answer: str, reference: str) -> dict[str, float | None]:
    """An answer against its reference; all numbers from 0 to 1.

    Returns:
        exact_match and f1 after SQuAD's normalisation of case, punctuation, articles and white space (Rajpurkar et al.
        2016, section 6.1); rouge_l, F-measure of the longest common subsequence of words (Lin 2004); chrf, F-score of
        character n-grams (Popovic 2015), kind to inflected languages; json_valid, 1 if the answer parses as JSON,
        None where the reference is not JSON.
    """
    from torchmetrics.functional.text import chrf_score, rouge_score, squad

    result = squad(
        {"prediction_text": answer, "id": "0"},
        {"answers": {"answer_start": [0], "text": [reference]}, "id": "0"},
    )
    return {
        "exact_match": round(result["exact_match"].item() / 100, 6),
        "f1": round(result["f1"].item() / 100, 6),
        "rouge_l": round(rouge_score(answer, reference, rouge_keys="rougeL")["rougeL_fmeasure"].item(), 6),
        "chrf": round(chrf_score([answer], [[reference]], n_word_order=0).item(), 6),
        "json_valid": float(_is_json(answer)) if _is_json(reference) else None,
    }


def repetition(tokens: Sequence[int], n: int = 4) -> float:
    """Share of n-grams that occurred before in the same answer: 0 for none, towards 1 for a loop.

    seq-rep-n of Welleck et al., "Neural Text Generation with Unlikelihood Training", 2019.
    """
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return round(1 - len(set(grams)) / len(grams), 6) if grams else 0.0


def _is_json(text: str) -> bool:
    """True for a JSON object or array; a bare number or word is no sign that JSON is wanted."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def new_record(item: Item) -> dict[str, Any]:
    """A line of items.jsonl, before any variant has answered."""
    return {
        "id": item.id,
        "prompt": item.prompt_messages,
        "prompt_ids": list(item.prompt_ids),
        "question": item.question,
        "reference": item.answer,
        "reference_tokens": len(item.answer_ids),
        "group": item.group,
        "source": item.source,
        "variants": {},
    }


def judge(variant: str, record: dict[str, Any], score: RawScore, answer: str) -> dict[str, Any]:
    """What a variant made of one item: the numbers and the answer that go into its record.

    Raises:
        UserError: The likelihood is not a finite number; names variant and item.
    """
    if not math.isfinite(score.nll) or not math.isfinite(score.other_nll or 0.0):
        raise UserError(
            f"Variant {variant} gives item {record['id']} a likelihood of {score.nll}: its weights are broken. "
            "Look at the step that made it, and at the loss curve of lora_adapter."
        )
    return {
        "nll": round(score.nll, NLL_DIGITS),
        "preference": None if score.other_nll is None else round(score.other_nll - score.nll, NLL_DIGITS),
        **judge_answer(answer, record["reference"]),
        "repetition": repetition(score.generated_ids),
        "stopped": score.stopped,
        "tokens": len(score.generated_ids),
        "answer_ids": list(score.generated_ids),
        "answer": answer,
    }


def summarise(records: Sequence[dict[str, Any]], variant: str) -> dict[str, float]:
    """A variant's quality over the test set.

    `nll` is per token, so long answers weigh more; perplexity is its exponential; all others are means over items.
    `preference` is by how many nats per token the right answer is likelier than the answer to another question: what
    was learnt of the answers themselves, and not of their style alone. `json_valid` is there only if some references
    are JSON, and is the mean over those.
    """
    own = [record["variants"][variant] for record in records]
    weights = [record["reference_tokens"] for record in records]
    nll = math.fsum(one["nll"] * weight for one, weight in zip(own, weights, strict=True)) / sum(weights)
    preferences = [one["preference"] for one in own if one["preference"] is not None]
    json_valid = [one["json_valid"] for one in own if one["json_valid"] is not None]
    return {
        "nll": round(nll, NLL_DIGITS),
        "perplexity": round(math.exp(nll), 4),
        **({"preference": _mean(preferences)} if preferences else {}),
        "exact_match": _mean(one["exact_match"] for one in own),
        "f1": _mean(one["f1"] for one in own),
        "rouge_l": _mean(one["rouge_l"] for one in own),
        "chrf": _mean(one["chrf"] for one in own),
        **({"json_valid": _mean(json_valid)} if json_valid else {}),
        "repetition": _mean(one["repetition"] for one in own),
        "stop_rate": _mean(one["stopped"] for one in own),
        "answer_tokens": _mean(one["tokens"] for one in own),
    }


def int4_gain_kept(variants: dict[str, dict[str, float]]) -> float | None:
    """Share of fine-tuning's gain in likelihood that survives quantising: 1.0 means all of it.

    (nll_base - nll_int4) / (nll_base - nll_merged); None when fine-tuning gained nothing, for then there is no share.
    """
    gain = variants["base"]["nll"] - variants["merged"]["nll"]
    if gain <= 0:
        return None
    return round((variants["base"]["nll"] - variants["int4"]["nll"]) / gain, 4)


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return round(math.fsum(numbers) / len(numbers), 6)
