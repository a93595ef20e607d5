"""How fast a variant answers one user, measured alike for every runtime. Never mixed with the quality numbers."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

STEPS = 24
WARM_UP_STEPS = 4


@dataclass(frozen=True)
class Speed:
    """Batch size 1, greedy, one prompt of median length.

    Attributes:
        time_to_first_token_s: From the prompt's tokens to the first token of the answer.
        tokens_per_s: Decoding after that; 1 / median of the step times, so a busy neighbour moves it little.
    """

    time_to_first_token_s: float
    tokens_per_s: float

    def to_dict(self) -> dict[str, float]:
        """JSON form."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def time_decoding(prefill: Callable[[], None], step: Callable[[], None]) -> Speed:
    """Run prefill, then steps, once to warm up and once against the clock.

    Args:
        prefill: Starts anew and produces the first token.
        step: Produces one more token; called at most `STEPS` times after a prefill.
    """
    prefill()
    for _ in range(WARM_UP_STEPS):
        step()
    start = time.perf_counter()
    prefill()
    first = time.perf_counter() - start
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return Speed(first, 1 / statistics.median(times))
