"""From rows to the tensors of one batch, with as little arithmetic as the loss allows.

Three things are left out, none of which can change the loss:
- logits of positions that predict nothing learnt: with 49 k words the output layer is a fifth of the arithmetic;
- what follows the last learnt token of a row;
- where it pays, padding, for which rows are packed into one sequence without seeing one another, and the common
  beginning of the batch's rows (system message, template) after its first copy.
"""

from dataclasses import dataclass
from typing import Any

from phi3_assets.olive.corpus import IGNORED_LABEL
from phi3_assets.training.attention import FLASH

Row = dict[str, Any]
Batch = dict[str, Any]


@dataclass(frozen=True)
class Attending:
    """What of a model decides how rows are laid out for it.

    Attributes:
        hidden_size: Numbers of a token between layers.
        dtype: The model's torch dtype.
        attention: Name, to transformers, of its attention.
        window: See `window_of`.
    """

    hidden_size: int
    dtype: Any
    attention: str = "sdpa"
    window: int | None = None

    @classmethod
    def of(cls, config: Any, dtype: Any, attention: str) -> "Attending":
        """Of a model with this configuration of transformers."""
        return cls(config.hidden_size, dtype, attention, window_of(config))


def collate(rows: list[Row], pad_token_id: int, model: Attending) -> Batch:
    """Make one batch for a causal language model of transformers.

    Args:
        rows: Rows of `CorpusRows`.
        pad_token_id: Padding token of shorter rows; padding has no label.
        model: Which it is for.

    Returns:
        input_ids and labels, int64 (sequences, tokens); logits_to_keep, bool (sequences, tokens), True where the next
        token is learnt; shift_labels, int64 (number of True,): that next token. Where rows are packed also
        position_ids, int64 (1, tokens), and but for flash attention, which sees by them where a row begins,
        attention_mask, `dtype` (1, 1, tokens, tokens).
    """
    # The last learnt token is predicted, but no learnt token is predicted from it.
    trimmed = [_trim(row) for row in rows]
    lengths = [len(row["input_ids"]) for row in trimmed]
    if model.attention == FLASH and model.window != 0:
        return _packed_layout(trimmed) if len(set(lengths)) > 1 else _padded_layout(trimmed, pad_token_id)
    prefix = shared_prefix(trimmed)
    if fits_window(lengths, model.window) and packing_pays(lengths, prefix, model.hidden_size):
        return _shared_layout(trimmed, prefix, model.dtype)
    return _padded_layout(trimmed, pad_token_id)


def window_of(config: Any) -> int | None:
    """Tokens that the least far-sighted layer of a model sees; None: all; 0: rows in one sequence see one another."""
    kinds = set(getattr(config, "layer_types", None) or ())
    # Layers of other kinds carry something from token to token.
    if kinds - {"full_attention", "sliding_attention"} or not hasattr(config, "num_attention_heads"):
        return 0
    window: int | None = getattr(config, "sliding_window", None)
    return window


def fits_window(lengths: list[int], window: int | None) -> bool:
    """Whether a mask of ours, which takes the place of the layers' own, hides nothing less than theirs."""
    return window is None or max(lengths) <= window


def shared_prefix(rows: list[Row]) -> int:
    """Number of tokens that all rows begin with and that predict nothing learnt."""
    shortest = min(len(row["input_ids"]) for row in rows)
    first = rows[0]
    limit = shortest
    for row in rows:
        same = row["input_ids"][:shortest] == first["input_ids"][:shortest]
        limit = min(limit, _leading(same))
        limit = min(limit, _leading(row["targets"][:shortest] == IGNORED_LABEL))
    return limit


def packing_pays(lengths: list[int], prefix: int, hidden_size: int) -> bool:
    """Whether one sequence of all rows, with their prefix once, costs less than padded rows.

    A layer multiplies each token with about 12 h² weights, and in attention with each token of its sequence, h numbers
    twice. So n tokens cost n (6 h + n) in units of 4 h: packing saves tokens, but its one sequence is long.
    """
    packed = prefix + sum(length - prefix for length in lengths)
    padded, longest = len(lengths) * max(lengths), max(lengths)
    return packed * (6 * hidden_size + packed) < padded * (6 * hidden_size + longest)


def _trim(row: Row) -> Row:
    """Shift labels to the position that predicts them, and end the row at the last such position."""
    import torch

    targets = torch.nn.functional.pad(row["labels"][1:], (0, 1), value=IGNORED_LABEL)
    width = int((targets != IGNORED_LABEL).nonzero()[-1]) + 1
    return {"input_ids": row["input_ids"][:width], "labels": row["labels"][:width], "targets": targets[:width]}


def _leading(flags: Any) -> int:
    """Number of True at the beginning of a bool tensor."""
    false = (~flags).nonzero()
    return int(false[0]) if len(false) else len(flags)


def _padded_layout(rows: list[Row], pad_token_id: int) -> Batch:
    """One sequence per row, padded on the right: attention is causal, so no token sees padding, without any mask."""
    from torch.nn.utils.rnn import pad_sequence

    padding = {"input_ids": pad_token_id, "labels": IGNORED_LABEL, "targets": IGNORED_LABEL}
    padded = {
        name: pad_sequence([row[name] for row in rows], batch_first=True, padding_value=value)
        for name, value in padding.items()
    }
    return _with_targets(padded)


def _packed_layout(rows: list[Row]) -> Batch:
    """All rows in one sequence; where one begins its positions do."""
    import torch

    parts = {name: torch.cat([row[name] for row in rows])[None] for name in rows[0]}
    positions = torch.cat([torch.arange(len(row["input_ids"])) for row in rows])
    return {**_with_targets(parts), "position_ids": positions[None]}


def _shared_layout(rows: list[Row], prefix: int, dtype: Any) -> Batch:
    """All rows in one sequence behind one copy of their prefix; each sees the prefix and itself."""
    import torch

    parts = {name: torch.cat([rows[0][name][:prefix], *(row[name][prefix:] for row in rows)])[None] for name in rows[0]}
    # Which row a token belongs to; 0: the prefix, which every row sees.
    lengths = [prefix, *(len(row["input_ids"]) - prefix for row in rows)]
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    visible = causal & ((owner[:, None] == owner) | (owner == 0))
    mask = torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)
    positions = torch.cat([torch.arange(prefix), *(torch.arange(prefix, len(row["input_ids"])) for row in rows)])
    return {**_with_targets(parts), "attention_mask": mask[None, None], "position_ids": positions[None]}


def _with_targets(batch: Batch) -> Batch:
    targets = batch.pop("targets")
    keep = targets != IGNORED_LABEL
    return {**batch, "logits_to_keep": keep, "shift_labels": targets[keep]}
