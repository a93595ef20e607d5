"""The numbers of formatted_corpus: what its checks judge and the UI shows."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from phi3_assets.core.errors import UserError
from phi3_assets.data.tokens.corpus_rows import Stats
from phi3_assets.data.tokens.join import Joined
from phi3_assets.data.tokens.measured import CorpusMetrics
from phi3_assets.data.tokens.model_tokens import IGNORED, ModelTokens

_BINS = 20


def refuse_if_empty(stats: Stats, tests: Mapping[str, int], params: Mapping[str, Any]) -> None:
    """Stop where nothing could be trained or tested.

    Raises:
        UserError: No row is left on one side of the split.
    """
    for what, rows in (("training", stats.rows), ("test", tests["rows"])):
        if not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in stats.quarantined.items())
            raise UserError(
                f"No {what} row is left (training rows left out: {reasons or 'none'}; tests left out: "
                f"{tests['rows_quarantined']}). Rows are too long above max_seq_len ({params['max_seq_len']} tokens): "
                "raise it or shorten the rows; rows that do not fit the template need another one."
            )


def corpus_metrics(
    stats: Stats,
    tests: Mapping[str, int],
    model: ModelTokens,
    overlap: int,
    joined: Joined | None,
    first_row: pa.Table | None,
    tokenised: int,
) -> CorpusMetrics:
    """Sum up a corpus, of which so many rows were not known before."""
    edges, counts = _histogram(stats.lengths)
    return CorpusMetrics(
        train_rows=stats.rows,
        test_rows=tests["rows"],
        rows_quarantined=stats.quarantined.total() + tests["rows_quarantined"],
        quarantined_by_reason=dict(sorted(stats.quarantined.items())),
        test_rows_quarantined=tests["rows_quarantined"],
        rows_too_long=stats.quarantined["too_long"],
        rows_truncated=stats.rows_truncated,
        tokens=stats.tokens,
        supervised_tokens=stats.supervised_tokens,
        supervised_share=stats.supervised_tokens / stats.tokens,
        length_percentiles_tokens={f"p{q}": percentile(stats.lengths, q) for q in (0, 50, 90, 95, 99, 100)},
        length_histogram={"edges_tokens": edges, "rows": counts},
        end_token_ids=list(model.end_ids),
        rows_without_end_token=stats.rows_without_end_token,
        test_rows_without_end_token=tests["rows_without_end_token"],
        rows_fully_masked=stats.rows_fully_masked,
        begin_token_id=model.begin_id,
        rows_with_two_begin_tokens=stats.rows_with_two_begin_tokens,
        prompts_checked=tests["prompts_checked"],
        prompts_tokenised_otherwise=tests["prompts_tokenised_otherwise"],
        train_test_overlap=overlap,
        joined_sequences=joined.sequences if joined else None,
        joined_tokens_dropped=joined.tokens_dropped if joined else None,
        joined_sequences_masked=joined.sequences_masked if joined else None,
        masked_preview=masked_pieces(model, first_row) if first_row is not None else [],
        rows_tokenised=tokenised,
        rows_reused=stats.rows - tokenised,
    )


def percentile(lengths: Counter[int], q: float) -> int:
    """The least length that at least q percent of the rows do not exceed."""
    wanted = lengths.total() * q / 100
    seen = 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= wanted:
            return length
    return 0


def _histogram(lengths: Counter[int]) -> tuple[list[float], list[int]]:
    values = np.array(sorted(lengths))
    weights = np.array([lengths[value] for value in values.tolist()])
    counts, edges = np.histogram(values, bins=min(_BINS, int(np.ptp(values)) + 1), weights=weights)
    return [round(float(edge), 2) for edge in edges], [int(count) for count in counts]


def masked_pieces(model: ModelTokens, row: pa.Table) -> list[dict[str, Any]]:
    """A row as text, cut where learning starts and stops; made from the labels, so that it shows what is true."""
    ids, labels = row["input_ids"][0].as_py(), row["labels"][0].as_py()
    pieces: list[dict[str, Any]] = []
    first = 0
    for i in range(1, len(ids) + 1):
        if i == len(ids) or (labels[i] == IGNORED) != (labels[first] == IGNORED):
            text = model.tokenizer.decode(ids[first:i], skip_special_tokens=False)
            pieces.append({"text": text, "learnt": labels[first] != IGNORED})
            first = i
    return pieces
