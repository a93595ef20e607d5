"""Is the test set a matter of recall? Measured: how many of its reference answers stand word for word in training."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from phi3_assets.data.tokens.model_tokens import IGNORED
from phi3_assets.evaluation.items import Item

TRAIN = "train.parquet"


def references_in_training(corpus: Path, items: Sequence[Item]) -> float:
    """Share of items whose reference answer a training row has, token for token, as an answer to another question.

    Args:
        corpus: A formatted_corpus. Where whole texts are learnt (supervise: all), nothing tells an answer from its
            question, and none is found.
        items: The test set.
    """
    import numpy as np

    wanted = [np.asarray(item.answer_ids, np.int32).tobytes() for item in items]
    missing = set(wanted)
    for answers in _answers(corpus / TRAIN):
        missing -= answers
    return round(sum(one not in missing for one in wanted) / len(items), 6)


def _answers(folder: Path) -> Iterator[set[bytes]]:
    """The answers of each batch of training rows: unbroken runs of learnt labels."""
    import numpy as np
    import pyarrow.parquet as pq

    for file in sorted(folder.glob("*.parquet")):
        for batch in pq.ParquetFile(file).iter_batches(columns=["labels"]):
            values = batch["labels"].flatten().to_numpy()
            learnt = np.concatenate([[False], values != IGNORED, [False]])
            starts, ends = np.flatnonzero(learnt[1:] & ~learnt[:-1]), np.flatnonzero(~learnt[1:] & learnt[:-1])
            yield {values[start:end].tobytes() for start, end in zip(starts, ends, strict=True)}
