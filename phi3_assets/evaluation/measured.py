"""What eval_report measures."""

from dataclasses import dataclass

from phi3_assets.core.forecast import MemoryMetrics


@dataclass(frozen=True, kw_only=True)
class EvaluationMetrics(MemoryMetrics):
    """The four variants on the same held-out questions.

    Attributes:
        variants: For base, adapter, merged and int4: the metrics of `evaluation.present.COLUMNS`, as far as they apply,
            and bytes, time_to_first_token_s, prefill_tokens_per_s, tokens_per_s, peak_memory_bytes.
        items: Questions.
        test_set: Digest of the questions and answers, hex.
        int4_gain_kept: Share of merged's gain in likelihood over base that int4 keeps; None: there was no gain.
        references_in_training: Share of reference answers that stand word for word in training; None: an earlier
            version's report.
        harder_exact_match: Share of the harder questions that int4 answers exactly; None: there are none.
        harder_preferred: Share of them whose right answer int4 finds likelier than a tempting wrong one.
        seconds: Wall time of the evaluation.
    """

    variants: dict[str, dict[str, float | None]]
    items: int
    test_set: str
    int4_gain_kept: float | None
    references_in_training: float | None = None
    harder_exact_match: float | None = None
    harder_preferred: float | None = None
    seconds: float
