"""Hidden states of many batches, in a file that the kernel pages in and out: they need no memory of their own."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phi3_assets.quantising.divergence import Batch


class Hidden:
    """One tensor (sequences, tokens, hidden) for each batch; float32."""

    def __init__(self, path: Path, batches: Sequence[Batch], hidden_size: int) -> None:
        """Make the file; what stood there is forgotten."""
        import torch

        self._batches = batches
        self._starts = [0]
        for batch in batches:
            self._starts.append(self._starts[-1] + batch.input_ids.numel())
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = self._starts[-1] * hidden_size
        flat = torch.from_file(str(path), shared=True, size=size, dtype=torch.float32)
        self._rows = flat.view(-1, hidden_size)

    def __getitem__(self, at: int) -> Any:
        rows = self._rows[self._starts[at] : self._starts[at + 1]]
        return rows.view(*self._batches[at].input_ids.shape, -1)

    def advance(self, function: Callable[[Any, Batch], Any]) -> None:
        """Replace each batch's states by `function(states, batch)`, without gradients."""
        import torch

        with torch.no_grad():
            for at, batch in enumerate(self._batches):
                self[at].copy_(function(self[at], batch))
