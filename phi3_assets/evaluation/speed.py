"""How fast a variant answers one user and how much memory that takes. Never mixed with the quality numbers.

int4 is measured in a process of its own that imports nothing but its runtime: the figure of a device without torch. The
torch variants are measured where they are scored, before any scoring, since each fresh process would spend seconds on
importing torch alone.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from phi3_assets.core.memory import peak_memory_bytes

STEPS = 24
WARM_UP_STEPS = 4
TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Speed:
    """Batch size 1, greedy, one prompt of median length.

    Attributes:
        time_to_first_token_s: From the prompt's tokens to the first token of the answer.
        prefill_tokens_per_s: Tokens of the prompt over that time.
        tokens_per_s: Decoding after that; 1 / median of the step times, so a busy neighbour moves it little.
        peak_memory_bytes: Most memory that a process needs for it, Python and runtime included; None where the
            operating system does not tell.
    """

    time_to_first_token_s: float
    prefill_tokens_per_s: float
    tokens_per_s: float
    peak_memory_bytes: int | None

    def to_dict(self) -> dict[str, float | None]:
        """JSON form; `Speed(**d)` is its inverse."""
        return asdict(self)


def measure_apart(model: Path, prompt_ids: Sequence[int]) -> Speed:
    """Measure a GenAI folder in a process of its own.

    Raises:
        RuntimeError: The process failed; with the end of what it wrote.
    """
    done = subprocess.run(
        [sys.executable, "-m", "phi3_assets.evaluation.probe"],
        input=json.dumps({"model": str(model), "prompt_ids": list(prompt_ids)}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        raise RuntimeError(f"Measuring the speed of int4 failed ({done.returncode}): {done.stderr[-2000:]}")
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def time_decoding(prompt_tokens: int, prefill: Callable[[], None], step: Callable[[], object]) -> Speed:
    """Run prefill, then steps, once to warm up and once against the clock.

    Args:
        prompt_tokens: Length of the prompt.
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
    return Speed(
        round(first, 4), round(prompt_tokens / first, 1), round(1 / statistics.median(times), 2), peak_memory_bytes()
    )
