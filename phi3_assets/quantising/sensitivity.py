"""What it costs that a linear layer has few bits: how far its decoder layer's output moves, on rows of the corpus.

One decoder layer is in memory at a time. Each linear layer of it is rounded by itself, while all others and the hidden
states that come in are the model's own; the error is relative to the hidden states that come out, so that layers at
all depths can be compared.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.quantising.decoder import Decoder
from phi3_assets.quantising.divergence import Batch
from phi3_assets.quantising.hidden import Hidden


def sensitivities(
    model: Path,
    batches: Sequence[Batch],
    bits: int,
    block_size: int,
    scratch: Path,
    progress: Callable[[float], None],
    *,
    symmetric: bool,
) -> dict[str, float]:
    """Mean squared relative error that so many bits make, by the linear layer's full name.

    That of twice as many is a small part of it (a 16th for 4, a 256th for 8), and is not taken off.

    Args:
        model: Hugging Face layout.
        batches: Rows to measure on.
        bits: Of the rounded layer.
        block_size: Weights that share a scale.
        scratch: Directory for hidden states.
        progress: Is told the share of layers that are done.
        symmetric: Whether the grid is centred on zero.
    """
    import torch
    from olive.common.quant.utils import WeightQuantizer
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(model)
    on_gpu = torch.cuda.is_available()
    dtype = config.dtype or torch.float32 if on_gpu else torch.float32
    device = torch.device("cuda" if on_gpu else "cpu")
    decoder = Decoder(model, config, dtype, device)
    hidden = Hidden(scratch / "sensitivity.bin", batches, config.hidden_size)
    hidden.advance(lambda _, batch: decoder.embed(batch))
    grid = WeightQuantizer(bits=bits, symmetric=symmetric, group_size=block_size)
    found = {}
    for at, name in enumerate(decoder.layers):
        layer = decoder.part(name)
        with torch.no_grad():
            right = [decoder.run(layer, hidden[number], batch) for number, batch in enumerate(batches)]
            for path, module in layer.named_modules():
                if not isinstance(module, torch.nn.Linear):
                    continue
                own = module.weight.data
                module.weight.data = grid.fake_quantize(own)
                found[f"{name}.{path}"] = sum(
                    _error(decoder.run(layer, hidden[number], batch), right[number], batch)
                    for number, batch in enumerate(batches)
                )
                module.weight.data = own
            for number, states in enumerate(right):
                hidden[number].copy_(states)
        progress((at + 1) / len(decoder.layers))
    return found


def _error(found: Any, right: Any, batch: Batch) -> float:
    relative = (found - right).float().square().sum(-1) / right.float().square().sum(-1)
    return float((relative[batch.counted.to(relative.device)] * batch.weights.to(relative.device)).sum())
