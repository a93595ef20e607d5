"""Loading the code location against a bare `import dagster`: what every run, tick and page load pays.

    python -m benchmarks load

The two are started in turn, each in a fresh process, and compared pair by pair, from its start to its end. The end is a
large part of it, in which Python walks and frees all that was imported; beside it stands the same without the end.
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
NO_END = "; import os; os._exit(0)"


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
    print(f"{f'median of {pairs}, s':34}{'whole process':>14}{'without its end':>17}")
    columns = [[(seconds(OURS + end), seconds(BARE + end)) for _ in range(pairs)] for end in ("", NO_END)]
    ratio, ratio_without = (statistics.median(ours / bare for ours, bare in column) for column in columns)
    for name, which in ((BARE, 1), (OURS, 0)):
        whole, without = (statistics.median(pair[which] for pair in column) for column in columns)
        print(f"{name:34}{whole:14.2f}{without:17.2f}")
    print(f"{f'ratio, pair by pair (at most {BAR})':34}{ratio:14.2f}{ratio_without:17.2f}\n")
    return {
        "name": "load",
        "ratio": round(ratio, 3),
        "ratio_without_end": round(ratio_without, 3),
        "bar": BAR,
        "ok": ratio <= BAR,
    }
