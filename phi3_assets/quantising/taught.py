"""What the teacher of a recovery makes of rows: computed once for those that come again."""

from collections.abc import Callable
from typing import Any

from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.quantising.divergence import Batch, batches_of, hidden_of

KEPT_BYTES = 1 << 27
"""Most memory that is taken for it: little beside two models, so that no forecast counts it."""
_AT_ONCE = 32
_SHARE = 0.2
"""What the teacher takes of a step's time, about."""
_WORTH_IT = 0.75
"""Share of distinct rows among all up to which it is."""


class Taught:
    """The teacher's last hidden states of all rows, where they are few and learnt from more than once.

    They do not depend on what was learnt from before, so a recovery that is resumed goes on with the same bits.
    """

    def __init__(
        self,
        teacher: Any,
        rows: CorpusRows,
        log: Callable[[str], None] = lambda _: None,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Compute them, unless each row comes once or they are too many.

        Args:
            teacher: The transformers model.
            rows: In the order of learning.
            log: Takes a line for the user.
            progress: Told how much of the whole recovery is done.
        """
        import torch

        self._teacher, self._order = teacher, rows.order
        self._hidden: dict[int, Any] = {}
        self.share = 0.0
        """Of the recovery's time, how much this took."""
        distinct = sorted(set(rows.order), key=lambda row: (rows.length(row), row))
        tokens = sum(rows.length(row) for row in distinct)
        if len(distinct) > _WORTH_IT * len(rows) or tokens * teacher.config.hidden_size * 4 > KEPT_BYTES:
            return
        self.share = _SHARE * len(distinct) / len(rows)
        log(f"The teacher reads {len(distinct)} rows once, which are learnt from {len(rows) / len(distinct):.1f} times")
        for at in range(0, len(distinct), _AT_ONCE):
            numbers = distinct[at : at + _AT_ONCE]
            for batch in batches_of([rows.row(row) for row in numbers], teacher.config):
                hidden = self._computed(batch)
                for spans in batch.spans:
                    self._hidden[numbers.pop(0)] = torch.cat([hidden[span] for span in spans])
            progress(self.share * min(1.0, (at + _AT_ONCE) / len(distinct)))

    def of(self, batch: Batch, places: range) -> Any:
        """Last hidden states of a batch's counted positions, (positions, hidden size).

        Args:
            batch: Of the rows at these places.
            places: In the order of learning.
        """
        import torch

        if not self._hidden:
            return self._computed(batch)
        states = [self._hidden[self._order[place]] for place in places]
        found = torch.empty((len(batch.weights), states[0].shape[1]), dtype=states[0].dtype, device=states[0].device)
        for of_row, spans in zip(states, batch.spans, strict=True):
            at = 0
            for span in spans:
                found[span] = of_row[at : at + span.stop - span.start]
                at += span.stop - span.start
        return found

    def _computed(self, batch: Batch) -> Any:
        import torch

        with torch.no_grad():
            return hidden_of(self._teacher, batch, self._teacher.dtype)
