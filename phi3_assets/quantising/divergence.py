"""How far a model's predictions are from another's: the loss of a recovery."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from phi3_assets.olive.corpus import IGNORED_LABEL
from phi3_assets.training.batches import fits_window, packing_pays, shared_prefix, window_of

BATCH_TOKENS = 1024
"""Rows go together into a batch of at most so many tokens, padding included, or alone; this bounds memory."""


@dataclass(frozen=True)
class Batch:
    """Rows side by side on the right of their padding, or one behind the other after one copy of their beginning.

    Attributes:
        input_ids: int64 (sequences, tokens).
        counted: bool (sequences, tokens): whether the position is of a row, and predicts a token of it.
        weights: float32 (number of counted,): what each counts in the loss.
        spans: Where each row stands among the counted positions: parts that follow one another in the row.
        visible: bool (tokens, tokens): which token sees which; None: each sees those before it.
        positions: int64 (1, tokens); None: as they stand.
    """

    input_ids: Any
    counted: Any
    weights: Any
    spans: list[list[slice]]
    visible: Any = None
    positions: Any = None


def batches_of(rows: list[dict[str, Any]], config: Any) -> list[Batch]:
    """Cut the rows of one step into batches.

    Weights are such that the batches' losses sum to the mean over positions that predict learnt tokens plus the mean
    over the others, of all rows, however they are cut and laid out.

    Args:
        rows: Of `CorpusRows`.
        config: The model's of transformers; decides between the two layouts, see `packing_pays` and `fits_window`.
    """
    import torch

    # The last token of a row predicts nothing of it.
    given = [{"input_ids": row["input_ids"][:-1], "targets": row["labels"][1:]} for row in rows]
    learnt = sum(int((row["targets"] != IGNORED_LABEL).sum()) for row in given)
    others = sum(len(row["targets"]) for row in given) - learnt
    for row in given:
        row["weights"] = torch.where(row["targets"] != IGNORED_LABEL, 1 / max(learnt, 1), 1 / max(others, 1))
    window = window_of(config)
    batches = []
    for part in _parts(given):
        prefix = shared_prefix(part)
        lengths = [len(row["input_ids"]) for row in part]
        pays = fits_window(lengths, window) and packing_pays(lengths, prefix, config.hidden_size)
        batches.append(_shared(part, prefix) if pays else _padded(part))
    return batches


def _parts(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    parts: list[list[dict[str, Any]]] = []
    longest = 0
    for row in rows:
        longest = max(longest, len(row["input_ids"]))
        if not parts or (len(parts[-1]) + 1) * longest > BATCH_TOKENS:
            parts.append([])
            longest = len(row["input_ids"])
        parts[-1].append(row)
    return parts


def _padded(rows: list[dict[str, Any]]) -> Batch:
    """One sequence per row, padded on the right: attention is causal, so no token sees padding."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = pad_sequence([row["input_ids"] for row in rows], batch_first=True)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    counted = torch.arange(ids.shape[1])[None] < lengths[:, None]
    ends = lengths.cumsum(0).tolist()
    spans = [[slice(end - len(row["input_ids"]), end)] for row, end in zip(rows, ends, strict=True)]
    return Batch(ids, counted, torch.cat([row["weights"] for row in rows]), spans)


def _shared(rows: list[dict[str, Any]], prefix: int) -> Batch:
    """All rows in one sequence behind one copy of their beginning, which counts for each of them."""
    import torch

    begun = sum(row["weights"][:prefix] for row in rows)
    lengths = [prefix, *(len(row["input_ids"]) - prefix for row in rows)]
    ids = torch.cat([rows[0]["input_ids"][:prefix], *(row["input_ids"][prefix:] for row in rows)])[None]
    # Which row a token belongs to; 0: the beginning, which every row sees.
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return Batch(
        input_ids=ids,
        counted=torch.ones(ids.shape, dtype=torch.bool),
        weights=torch.cat([torch.as_tensor(begun), *(row["weights"][prefix:] for row in rows)]),
        spans=[[slice(0, prefix), slice(start, end)] for start, end in pairwise(ends)],
        visible=causal & ((owner[:, None] == owner) | (owner == 0)),
        positions=torch.cat([torch.arange(prefix), *(torch.arange(prefix, prefix + n) for n in lengths[1:])])[None],
    )


def divergence(teacher: Any, student: Any, batch: Batch, taught: Any = None, *, halved: bool = False) -> Any:
    """Weighted sum of the Kullback-Leibler divergence of student from teacher over the batch's positions, in nats.

    Args:
        teacher: The model that is learnt from.
        student: The model that learns.
        batch: Of `batches_of`.
        taught: The teacher's last hidden states, as `hidden_of` gives them; None: they are computed.
        halved: Whether the student's layers multiply in bfloat16, whatever its numbers are.
    """
    import torch

    with torch.no_grad():
        hidden = hidden_of(teacher, batch, teacher.dtype) if taught is None else taught
        wanted = probabilities_of(_predicted(teacher, hidden))
    return divergence_from(wanted, logits_of(student, batch, teacher.dtype, halved=halved), batch)


def probabilities_of(logits: Any) -> tuple[Any, Any]:
    """Probabilities (positions, vocabulary) and their entropy (positions,) in nats."""
    import torch

    wanted = torch.log_softmax(logits, -1)
    probabilities = wanted.exp()
    return probabilities, -(probabilities * wanted).sum(-1)


def divergence_from(wanted: tuple[Any, Any], logits: Any, batch: Batch) -> Any:
    """As `divergence`, of logits (positions, vocabulary) from what `probabilities_of` gave for the teacher's."""
    from torch.nn import functional

    probabilities, entropy = wanted
    crossed = functional.cross_entropy(logits, probabilities, reduction="none")
    return ((crossed - entropy) * batch.weights.to(crossed.device)).sum()


def mean_divergence(teacher: Any, student: Any, rows: list[dict[str, Any]]) -> float:
    """The loss over all of these rows, in nats."""
    import torch

    with torch.no_grad():
        batches = batches_of(rows, student.config)
        return sum(float(divergence(teacher, student, batch)) for batch in batches)


def attention_of(batch: Batch, dtype: Any, device: Any) -> dict[str, Any]:
    """What a model is told of a layout that is not plain: "attention_mask" and "position_ids"; `dtype` is its own."""
    import torch

    if batch.visible is None:
        return {}
    mask = torch.zeros(batch.visible.shape, dtype=dtype)
    mask = mask.masked_fill(~batch.visible, torch.finfo(dtype).min)[None, None]
    return {"attention_mask": mask.to(device), "position_ids": batch.positions.to(device)}


def logits_of(model: Any, batch: Batch, dtype: Any, *, halved: bool = False) -> Any:
    """Logits of the counted positions, float32 (positions, vocabulary).

    Args:
        model: The model.
        batch: Of `batches_of`.
        dtype: That of the model's arithmetic.
        halved: Whether its layers multiply in bfloat16 all the same; what is predicted stays exact, for it is compared.
    """
    import torch

    with torch.autocast(model.device.type, torch.bfloat16, enabled=halved):
        hidden = hidden_of(model, batch, dtype)
    return _predicted(model, hidden.to(dtype))


def hidden_of(model: Any, batch: Batch, dtype: Any) -> Any:
    """Last hidden states of the counted positions, (positions, hidden size)."""
    ids, counted = batch.input_ids.to(model.device), batch.counted.to(model.device)
    more = attention_of(batch, dtype, model.device)
    return model.base_model(input_ids=ids, use_cache=False, **more).last_hidden_state[counted]


def _predicted(model: Any, hidden: Any) -> Any:
    import torch

    return model.get_output_embeddings()(hidden).to(torch.float32)
