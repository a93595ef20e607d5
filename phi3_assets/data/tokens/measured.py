"""What formatted_corpus measures."""

from dataclasses import dataclass
from typing import Any

from phi3_assets.core.measured import Metrics


@dataclass(frozen=True, kw_only=True)
class CorpusMetrics(Metrics):
    """The rows as tokens.

    Attributes:
        train_rows: Rows trained on.
        test_rows: Rows tested with.
        rows_quarantined: Rows of both that were left out.
        quarantined_by_reason: Training rows left out, by reason code.
        test_rows_quarantined: Test rows left out.
        rows_too_long: Training rows left out because they are longer than max_seq_len.
        rows_truncated: Training rows that were cut to max_seq_len.
        tokens: Of all training rows.
        supervised_tokens: Of those, the ones that are learnt.
        supervised_share: supervised_tokens / tokens, 0 to 1.
        length_percentiles_tokens: p0 to p100 of the training rows' lengths.
        length_histogram: edges_tokens, one more than bins, and rows, one a bin.
        end_token_ids: The base model's.
        rows_without_end_token: Training rows of which an answer has no learnt end token.
        test_rows_without_end_token: Test rows whose answer has none.
        rows_fully_masked: Training rows in which nothing is learnt.
        begin_token_id: The base model's; None: it has none.
        rows_with_two_begin_tokens: Training rows that begin twice.
        prompts_checked: Test prompts that were tokenised alone too.
        prompts_tokenised_otherwise: Of those, the ones that gave other tokens than before their answer.
        train_test_overlap: Training rows whose prompt is, token for token, that of a test.
        joined_sequences: With strategy join: sequences that rows were cut into; else None.
        joined_tokens_dropped: With strategy join: tokens left over at the end.
        joined_sequences_masked: With strategy join: sequences in which nothing is learnt.
        masked_preview: The first training row as pieces: text, and whether it is learnt.
        rows_tokenised: Training rows that were tokenised in this run.
        rows_reused: Training rows that were known from an earlier run.
    """

    train_rows: int
    test_rows: int
    rows_quarantined: int
    quarantined_by_reason: dict[str, int]
    test_rows_quarantined: int
    rows_too_long: int
    rows_truncated: int
    tokens: int
    supervised_tokens: int
    supervised_share: float
    length_percentiles_tokens: dict[str, int]
    length_histogram: dict[str, list[float] | list[int]]
    end_token_ids: list[int]
    rows_without_end_token: int
    test_rows_without_end_token: int
    rows_fully_masked: int
    begin_token_id: int | None
    rows_with_two_begin_tokens: int
    prompts_checked: int
    prompts_tokenised_otherwise: int
    train_test_overlap: int
    joined_sequences: int | None
    joined_tokens_dropped: int | None
    joined_sequences_masked: int | None
    masked_preview: list[dict[str, Any]]
    rows_tokenised: int
    rows_reused: int
