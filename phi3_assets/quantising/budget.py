"""Which layers get twice the bits: those that lose most by few, as many as the recipe's int4_budget pays for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.budget import parse_budget
from phi3_assets.core.errors import UserError
from phi3_assets.core.step import ProgressCallback, StepContext
from phi3_assets.models.directory import tensor_headers
from phi3_assets.olive.corpus import CorpusOrder, read_corpus, read_eval_rows
from phi3_assets.olive.int4_configs import check_block_size
from phi3_assets.quantising.divergence import Batch, batches_of
from phi3_assets.quantising.sensitivity import sensitivities
from phi3_assets.quantising.size import default_bytes, int4_bytes

MOST_ROWS = 16
"""Rows that sensitivities are measured on: hundreds of positions; the default model takes 20 seconds."""


def budget_bytes(model: Path, params: Mapping[str, Any]) -> int:
    """Most bytes that graph and weights may have; 0: the recipe sets no budget.

    Raises:
        UserError: The least that these settings can is more, or the model's layers are not whole blocks.
    """
    if not params["int4_budget"]:
        return 0
    check_block_size(model, params["int4_block_size"])
    budget, default = parse_budget(params["int4_budget"]), default_bytes(model, params)
    limit, least = budget.limit(default), int4_bytes(model, params)
    if least > limit:
        ways = []
        if params["int4_bits"] > 2:
            ways.append("int4_bits: 2")
        if params["int4_embedding_bits"] > 4:
            ways.append("int4_embedding_bits: 4")
        if params["int4_block_size"] < 256:
            ways.append(f"int4_block_size: {2 * params['int4_block_size']}")
        if not params["int4_symmetric"]:
            ways.append("int4_symmetric: true")
        raise UserError(
            f"int4_budget {params['int4_budget']} is {limit / 1e6:.1f} MB of Olive's default of {default / 1e6:.1f} "
            f"MB, and cannot be met: with every layer in {params['int4_bits']} bits this model takes "
            f"{least / 1e6:.1f} MB ({least / default:.3f} of the default). Raise the budget, or "
            f"save elsewhere: {', '.join(ways)}."
        )
    return limit


def layers_within_budget(ctx: StepContext, train_file: Path, progress: ProgressCallback) -> list[str]:
    """Full names of the linear layers that get twice int4_bits; none without a budget.

    They are measured on the development split, and where the recipe holds out none, on rows that are trained on.

    Args:
        ctx: Of the step.
        train_file: The corpus.
        progress: Takes the fraction that is measured.

    Raises:
        UserError: As `budget_bytes`.
    """
    model, params = ctx.inputs["merged_model"], ctx.params
    limit = budget_bytes(model, params)
    if not limit:
        return []
    bits = params["int4_bits"]
    found = sensitivities(
        model,
        _batches(model, train_file, params["eval_share"]),
        bits,
        params["int4_block_size"],
        ctx.work / "hidden",
        lambda share: progress(fraction=share),
        symmetric=params["int4_symmetric"],
    )
    chosen = choose(found, limit - int4_bytes(model, params), extra_bytes(model, params))
    size = int4_bytes(model, params, chosen)
    ctx.log(
        f"int4_budget {params['int4_budget']}: {len(chosen)} of {len(found)} linear layers get {2 * bits} bits; "
        f"graph and weights will have about {size / 1e6:.1f} of {limit / 1e6:.1f} MB"
    )
    for name in chosen:
        ctx.note(f"{2 * bits} bits: {name} ({bits} bits move its decoder layer's output by {found[name] ** 0.5:.2%})")
    return chosen


def choose(losses: Mapping[str, float], most_bytes: int, extra: Mapping[str, int]) -> list[str]:
    """Take the layers that lose most for each byte, one after the other, where they still fit; sorted by name.

    Args:
        losses: What few bits lose, by layer.
        most_bytes: That all of them together may take more.
        extra: Bytes that each takes more with twice the bits.
    """
    chosen = []
    for name in sorted(losses, key=lambda one: (-losses[one] / extra[one], one)):
        if extra[name] <= most_bytes:
            most_bytes -= extra[name]
            chosen.append(name)
    return sorted(chosen)


def extra_bytes(model: Path, params: Mapping[str, Any]) -> dict[str, int]:
    """What twice int4_bits cost each matrix more."""
    bits = params["int4_bits"]
    zero_bits = 0 if params["int4_symmetric"] else bits
    costs = {}
    for name, tensor in tensor_headers(model).items():
        if len(tensor["shape"]) == 2:
            rows, columns = tensor["shape"]
            per_row = columns * bits + columns // params["int4_block_size"] * zero_bits
            costs[name.removesuffix(".weight")] = rows * (per_row + 7) // 8
    return costs


def _batches(model: Path, train_file: Path, eval_share: float) -> list[Batch]:
    from transformers import AutoConfig

    rows = (
        read_eval_rows(train_file, eval_share)
        if eval_share
        else read_corpus(train_file, CorpusOrder(1.0, -1, step_rows=1, group_by_length=False, data_seed=0))
    )
    # Spread over all lengths, for held-out rows come sorted by length.
    step = max(1, len(rows) // MOST_ROWS)
    chosen = [rows[at] for at in range(0, len(rows), step)][:MOST_ROWS]
    return batches_of(chosen, AutoConfig.from_pretrained(model))
