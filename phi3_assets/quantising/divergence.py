"""How far a model's predictions are from another's: the loss of a recovery."""

from dataclasses import dataclass
from typing import Any

from phi3_assets.olive.corpus import IGNORED_LABEL

BATCH_TOKENS = 1024
"""Rows go together into a batch of at most so many tokens, padding included, or alone; this bounds memory."""


@dataclass(frozen=True)
class Batch:
    """Rows side by side.

    Attributes:
        input_ids: int64 (rows, tokens), padded on the right: attention is causal, so no token sees padding.
        counted: bool (rows, tokens): whether the position predicts a token of its row.
        weights: float32 (number of counted,): what each counts in the loss.
    """

    input_ids: Any
    counted: Any
    weights: Any


def batches_of(rows: list[dict[str, Any]]) -> list[Batch]:
    """Cut the rows of one step into batches.

    Weights are such that the batches' losses sum to the mean over positions that predict learnt tokens plus the mean
    over the others, of all rows, however they are cut.

    Args:
        rows: Of `CorpusRows`.
    """
    import torch
    from torch.nn.utils.rnn import pad_sequence

    targets = [row["labels"][1:] != IGNORED_LABEL for row in rows]
    learnt = sum(int(one.sum()) for one in targets)
    others = sum(len(one) for one in targets) - learnt
    parts: list[list[int]] = []
    longest = 0
    for at, row in enumerate(rows):
        longest = max(longest, len(row["input_ids"]))
        if not parts or (len(parts[-1]) + 1) * longest > BATCH_TOKENS:
            parts.append([])
            longest = len(row["input_ids"])
        parts[-1].append(at)
    batches = []
    for part in parts:
        ids = pad_sequence([rows[at]["input_ids"] for at in part], batch_first=True)
        counted = torch.zeros(ids.shape, dtype=torch.bool)
        for place, at in enumerate(part):
            counted[place, : len(targets[at])] = True
        is_learnt = torch.cat([targets[at] for at in part])
        weights = torch.where(is_learnt, 1 / max(learnt, 1), 1 / max(others, 1))
        batches.append(Batch(ids, counted, weights))
    return batches


def divergence(teacher: Any, student: Any, batch: Batch) -> Any:
    """Weighted sum of the Kullback-Leibler divergence of student from teacher over the batch's positions, in nats."""
    import torch
    from torch.nn import functional

    device = student.device
    ids, counted, weights = batch.input_ids.to(device), batch.counted.to(device), batch.weights.to(device)
    with torch.no_grad():
        wanted = torch.log_softmax(_logits(teacher, ids, counted), -1)
        probabilities = wanted.exp()
        entropy = -(probabilities * wanted).sum(-1)
        del wanted
    crossed = functional.cross_entropy(_logits(student, ids, counted), probabilities, reduction="none")
    return ((crossed - entropy) * weights).sum()


def mean_divergence(teacher: Any, student: Any, rows: list[dict[str, Any]]) -> float:
    """The loss over all of these rows, in nats."""
    import torch

    with torch.no_grad():
        return sum(float(divergence(teacher, student, batch)) for batch in batches_of(rows))


def _logits(model: Any, ids: Any, counted: Any) -> Any:
    """Logits of the counted positions, float32 (positions, vocabulary)."""
    import torch

    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    return model.get_output_embeddings()(hidden[counted]).to(torch.float32)
