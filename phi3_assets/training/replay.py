"""Texts that the base model writes itself, trained on beside the corpus, so that it does not forget its language.

A model that learns narrow answers alone forgets how to say anything else, also at low learning rates. What it would
have said before, learnt along, holds it there: self-synthesised rehearsal (Huang et al. 2024, arXiv:2403.01244), here
of plain prose. No other data is needed, and none of it comes from what the model is tested with.
"""

import gc
from math import ceil
from pathlib import Path
from typing import Any

from phi3_assets.olive.corpus import IGNORED_LABEL

TOKENS = 64
"""Tokens of a text; all are of one length, so that the order of rows does not depend on what was written."""
MOST_TEXTS = 1000
"""However large the corpus: they are for keeping, and the writing takes time."""
_AT_ONCE = 48
_TOP_P = 0.95
# Ordinary beginnings: without one, many models that chat would write the beginning of a chat.
_OPENINGS = (
    *("The", "In", "A", "When", "She", "He", "It", "They", "Many", "After", "On", "For", "This", "There", "During"),
    *("Most", "If", "One", "As", "At", "While", "My", "Although", "Our", "People", "Every", "Some", "By", "To", "We"),
)


def texts_for(rows: int, share: float) -> int:
    """How many texts are written for a corpus of so many training rows."""
    return min(MOST_TEXTS, ceil(rows * share))


def count_texts(file: Path) -> int:
    """How many were written."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(file).num_rows)


def write_texts(base_model: Path, count: int, seed: int, dtype: str, target: Path) -> None:
    """Have the base model write texts, sampled, and keep them as rows to learn.

    Args:
        base_model: Directory of the base model.
        count: Texts.
        seed: Of the sampling; on one machine the same seed writes the same texts.
        dtype: Of weights and arithmetic.
        target: Parquet file with the columns of train.parquet that are trained on: `input_ids` and `labels`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(base_model)
    model = transformers.AutoModelForCausalLM.from_pretrained(base_model, dtype=getattr(torch, dtype)).to(device)
    model.eval()
    openings = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in _OPENINGS]
    openings = [openings[number % len(openings)] for number in range(count)]
    rows: list[list[int]] = []
    transformers.set_seed(seed)
    # Those with openings of one length at a time: no padding.
    for size in sorted({len(opening) for opening in openings}):
        same = [opening for opening in openings if len(opening) == size]
        for first in range(0, len(same), _AT_ONCE):
            started = torch.tensor(same[first : first + _AT_ONCE], device=device)
            rows += _continued(model, started, list(tokenizer.all_special_ids))[:, :TOKENS].tolist()
    columns = {"input_ids": rows, "labels": [[IGNORED_LABEL, *row[1:]] for row in rows]}
    pq.write_table(pa.table(columns), target)
    del model
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def _continued(model: Any, started: Any, special: list[int]) -> Any:
    import torch

    with torch.inference_mode():
        return model.generate(
            started,
            attention_mask=torch.ones_like(started),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=_TOP_P,
            repetition_penalty=1.0,
            min_new_tokens=TOKENS,
            max_new_tokens=TOKENS,
            suppress_tokens=special,
            pad_token_id=special[0] if special else 0,
            use_cache=True,
        )
