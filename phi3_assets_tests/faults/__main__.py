"""`python -m phi3_assets_tests.faults`: seed every fault and print the matrix; exit code 1: a cell is red."""

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from phi3_assets_tests.conftest import clean_env, lay_out
from phi3_assets_tests.faults import damage, database, deployed, disks, kills, together
from phi3_assets_tests.faults.findings import GRAPH, Finding, Findings
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan
from phi3_assets_tests.tiny_graph import TINY, phi3

FAULTS: dict[str, Callable[[Plan], None]] = {
    "worker": kills.worker,
    "run": kills.run,
    "run-worker": deployed.run_worker,
    "daemon": deployed.daemon,
    "webserver": deployed.webserver,
    "code-server": deployed.code_server,
    "disk-full": disks.full,
    "read-only": disks.read_only,
    "corrupted": damage.corrupted,
    "deleted": damage.deleted,
    "postgres": database.restarted,
    "two-graphs": together.two_graphs,
    "data-changed": together.data_changed,
    "clock-back": together.clock_back,
    "many-runs": together.many_runs,
}


def main() -> int:
    """Seed the faults that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m phi3_assets_tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FAULTS, metavar="NAME", help="these faults alone")
    parser.add_argument("--runs", type=int, default=100, help="how many runs in a row (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments that are chosen by chance (default: 0)")
    parser.add_argument("--side-by-side", type=int, default=1, help="faults at a time, each in a home of its own")
    parser.add_argument("--list", action="store_true", help="name all faults and what they do")
    asked = parser.parse_args()
    if asked.list:
        for name, fault in FAULTS.items():
            print(f"{name:13} {(fault.__doc__ or '').splitlines()[0]}")
        return 0
    names = asked.only or list(FAULTS)
    began = time.monotonic()
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="phi3-faults-") as folder:
        plan = Plan(Path(folder), _reference(Path(folder) / "reference"), asked.runs, asked.seed, findings)
        with ThreadPoolExecutor(asked.side_by_side) as pool:
            try:
                list(pool.map(lambda name: seed(name, FAULTS[name], plan), names))
            except KeyboardInterrupt:
                pool.shutdown(cancel_futures=True)
                raise
    print(f"\n{findings.matrix()}\nIn {(time.monotonic() - began) / 60:.0f} minutes, seed {asked.seed}.")
    return 1 if findings.red else 0


def seed(name: str, fault: Callable[[Plan], None], plan: Plan) -> None:
    """Seed one fault; one that cannot be told to its end is red."""
    began = time.monotonic()
    try:
        fault(plan)
    except Exception as error:
        traceback.print_exc()
        plan.findings.add(Finding(name, GRAPH, "told to its end", f"{type(error).__name__}: {str(error)[-400:]}"))
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)


def _reference(home: Path) -> Path:
    """The graph, made with nothing happening."""
    lay_out(home)
    done = phi3("run", *TINY, home=home, env=clean_env(OMP_NUM_THREADS="1"), timeout_s=TIMEOUT_S)
    assert done.returncode == 0, done.stdout
    return home


if __name__ == "__main__":
    sys.exit(main())
