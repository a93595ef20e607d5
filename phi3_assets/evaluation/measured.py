"""What eval_report measures."""

from dataclasses import dataclass

from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics(Metrics):
    """The four variants on the same held-out questions.

    Attributes:
        variants: For base, adapter, merged and int4: the metrics of `evaluation.present.COLUMNS`, as far as they apply,
            and bytes, time_to_first_token_s, prefill_tokens_per_s, tokens_per_s, peak_memory_bytes.
        items: Questions.
        test_set: Digest of the questions and answers, hex.
        int4_gain_kept: Share of merged's gain in likelihood over base that int4 keeps; None: there was no gain.
        seconds: Wall time of the evaluation.
    """

    variants: dict[str, dict[str, float | None]]
    items: int
    test_set: str
    int4_gain_kept: float | None
    seconds: float
