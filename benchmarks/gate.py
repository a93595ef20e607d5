"""The gate on the default model: new facts learnt are promoted, shuffled answers are refused by name of the slice.

    make run                         (once: it makes the home, with the sample and its champion)
    python -m benchmarks gate        (two retrains, each about ten minutes on two cores)

Each case runs in a copy of the home, beside it, with the rows of `phi3_assets.sample.new_subject` added to its
datasets; the home itself is only read. A copy that stands is gone on with, so an interrupted benchmark is not begun
anew; remove it to do so. The ratio is the share of the two cases that ended as they should.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import UserError
from phi3_assets.core.home import default_home
from phi3_assets.core.ledger import product_key
from phi3_assets.release.champion import Champion
from phi3_assets.release.history import Entry
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.sample.make_sample import COLUMNS, csv_text
from phi3_assets.sample.new_subject import rows

FILE = "signals.csv"
CASES = ("learnt", "shuffled")


def run(args: Sequence[str]) -> dict[str, Any]:
    """Retrain on each case; see the module."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gate", description=__doc__)
    parser.add_argument("--home", type=Path, default=default_home(), help="PHI3_HOME with a champion from `phi3 run`")
    parser.add_argument("--product", default="operations-desk")
    parser.add_argument("--case", choices=CASES, help="one alone")
    parser.add_argument("phi3_run", nargs="*", help="behind --: more for `phi3 run`, such as --recipe tiny-test")
    options = parser.parse_args(args)
    cases = [options.case] if options.case else list(CASES)
    told = {}
    for case in cases:
        home = copy_of(options.home, case, options.product)
        (home / "datasets" / FILE).write_text(csv_text(COLUMNS, rows(shuffled=case == "shuffled")), encoding="utf-8")
        code, said = retrain(home, options.phi3_run)
        told[case] = unfit(said, case) if code else outcome(home, options.product, case)
    print()
    for case, (ok, text) in told.items():
        print(f"{case:9} {'as it should' if ok else 'NOT as it should'}: {text}")
    right = sum(ok for ok, _ in told.values())
    return {
        "name": "gate",
        "ratio": right / len(cases),
        "bar": 1.0,
        "ok": right == len(cases),
        "cases": {case: text for case, (_, text) in told.items()},
    }


def retrain(home: Path, more: Sequence[str]) -> tuple[int, list[str]]:
    """Run the graph on a home; exit code, and the lines that it printed, which are printed on."""
    command = [sys.executable, "-m", "phi3_assets.cli.app", "run", "--home", str(home), *more]
    said = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            said.append(line)
    return process.returncode, said


def unfit(said: Sequence[str], case: str) -> tuple[bool, str]:
    """Whether a model that is not fit was refused for the file that was shuffled; no more is decided of it then."""
    reason = next((line.strip() for line in said if "FAILED at model_is_fit" in line), "the run failed otherwise")
    return case == "shuffled" and f"source {FILE}" in reason, reason


def copy_of(home: Path, case: str, product: str) -> Path:
    """A copy of a home beside it, to add rows to.

    Raises:
        UserError: It has no champion, so there is nothing to be better than.
    """
    if champion(home, product).present() is None:
        raise UserError(f"{home} has no champion of {product} yet. Make one: phi3 run --home {home}")
    copy = home.with_name(f"{home.name}-gate-{case}")
    if not copy.exists():
        # What runs elsewhere is in `work`, and Dagster's own records name runs of the home that is copied.
        part = copy.with_name(f"{copy.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(home, part, ignore=lambda folder, _: {"work", ".dagster"} if Path(folder) == home else set())
        part.rename(copy)
    return copy


def champion(home: Path, product: str) -> Champion:
    """The champion of a home."""
    return Champion(LocalArtifactStore(home=str(home)).ledger, product)


def outcome(home: Path, product: str, case: str) -> tuple[bool, str]:
    """Whether the last decision is the right one, and what there is to be read of it."""
    last = champion(home, product).history()[-1]
    failed = {one["rule"]: one["sentence"] for one in last.decision["findings"] if not one["passed"]}
    page = LocalArtifactStore(home=str(home)).ledger.where(product_key(product, "decisions", last.decision["page"]))
    text = f"{last.action}. {' '.join(failed.values()) or last.sentence} Page: {page}"
    if case == "learnt":
        return last.action == "promote" and says_what_was_gained(Path(page).read_text(encoding="utf-8")), text
    return refused_by_name(last, failed), text


def says_what_was_gained(page: str) -> bool:
    """Whether a decision's page has the new rows as slices of their own."""
    return all(f"<td>{name}</td>" in page for name in ("new items", f"source {FILE}"))


def refused_by_name(entry: Entry, failed: dict[str, str]) -> bool:
    """Whether a release was refused for the slice that was shuffled."""
    return entry.action == "refuse" and f"source {FILE}" in failed.get("every_slice_is_learnt", "")
