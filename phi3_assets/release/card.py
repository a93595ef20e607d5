"""MODEL_CARD.md: what is released, how good it is, how to use it and where it ends."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.evaluation.present import markdown_table

TEMPLATE = Path(__file__).with_name("MODEL_CARD.md.j2")
RESULTS = {"exact_match": "Exact match", "f1": "Token F1", "perplexity": "Perplexity of the answer"}


def model_card(
    *,
    scores: Mapping[str, Any],
    base_model: str,
    licence: str,
    licence_file: str | None,
    runtime: str,
    system_prompt: bool,
    findings: Sequence[str],
    certificate: Sequence[str],
    origin: Mapping[str, str],
) -> str:
    """The card as Markdown with a YAML head in the Hugging Face format.

    Args:
        scores: What scores.json holds.
        base_model: Where the base model came from.
        licence: Its licence, as an identifier of the Hugging Face Hub.
        licence_file: Name of the licence text in the bundle, if there is one.
        runtime: Version of onnxruntime-genai that the model was evaluated with.
        system_prompt: Whether questions were asked after a system prompt.
        findings: What the gate found, a sentence each.
        certificate: What quantising did, a sentence each; see `phi3_assets.release.certificate`.
        origin: Content digests of what the bundle was made of, by name.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    title = f"{base_model}, fine-tuned, int4"
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="private",
            dataset_name=f"held-out questions ({scores['items']} items)",
            metric_type=metric,
            metric_name=name,
            metric_value=scores["variants"]["int4"][metric],
        )
        for metric, name in RESULTS.items()
    ]
    data = ModelCardData(
        license=licence,
        library_name="onnxruntime-genai",
        pipeline_tag="text-generation",
        tags=["onnx", "int4", "lora"],
        model_name=title,
        eval_results=results,
    )
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=title,
        base_model=base_model,
        licence=licence,
        licence_file=licence_file,
        items=scores["items"],
        max_new_tokens=scores["max_new_tokens"],
        table=markdown_table(scores["variants"]),
        gain_kept=scores["int4_gain_kept"],
        runtime=runtime,
        system_prompt=system_prompt,
        findings=findings,
        certificate=certificate,
        origin=origin,
    )
    return str(card).rstrip() + "\n"
