"""Loading the code location against a bare `import dagster`: what every run, tick and page load pays.

    python -m benchmarks load

The two are started in turn, each in a fresh process, and compared pair by pair.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

BAR = 1.25
BARE = "import dagster"
OURS = "import phi3_assets.definitions"


def seconds(code: str) -> float:
    """Wall time of a fresh Python that runs `code`."""
    # As with whoever installed it: Python keeps the modules that it has compiled.
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=env)
    return time.perf_counter() - start


def run(args: list[str]) -> dict[str, Any]:
    """Median ratio of the pairs; at most 1.25."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks load")
    parser.add_argument("--pairs", type=int, default=9)
    pairs = parser.parse_args(args).pairs
    seconds(BARE), seconds(OURS)  # once for the disk
    times = [(seconds(OURS), seconds(BARE)) for _ in range(pairs)]
    ours, bare = (statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(ours / bare for ours, bare in times)
    print(f"{'':34}median of {pairs}, s")
    print(f"{BARE:34}{bare:.2f}")
    print(f"{OURS:34}{ours:.2f}")
    print(f"{'ratio, pair by pair':34}{ratio:.2f} (at most {BAR})\n")
    return {"name": "load", "ratio": round(ratio, 3), "bar": BAR, "ok": ratio <= BAR}
