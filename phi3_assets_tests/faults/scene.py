"""A home in which a fault is seeded, and the questions that are asked of it afterwards, whatever the fault was."""

import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import MANIFEST, ArtefactRef, read_manifest, verify
from phi3_assets.core.recipe import DEFAULT_PRODUCT
from phi3_assets.resources.local_ledger import LocalLedger
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest
from phi3_assets.steps import STEPS
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.faults.findings import GRAPH, STAGES, Finding, Findings
from phi3_assets_tests.tiny_graph import TINY, Run, gone, workers

TIMEOUT_S = 600.0
"""For anything: on a quiet machine the whole graph takes a tenth of it."""
MEASURES = frozenset({"eval_report", "release_bundle"})
"""Made of seconds that were measured, so no two of them are equal: their scores are compared."""
_SAYS = "end of what it said: "
_END_CHARACTERS = 600


@dataclass(frozen=True)
class Plan:
    """What all faults share.

    Attributes:
        folder: Where homes are made; removed afterwards.
        reference: A home whose graph was made once with nothing happening.
        runs: How many `many_runs` makes in a row.
        seed: Of every moment that is chosen by chance.
        findings: Where answers go.
    """

    folder: Path
    reference: Path
    runs: int
    seed: int
    findings: Findings


class Scene:
    """A home of one fault."""

    def __init__(self, plan: Plan, fault: str, home: Path | None = None) -> None:
        """Lay it out: the reference's files, of which nothing is made yet.

        Args:
            plan: What all faults share.
            fault: Its name.
            home: Where; None: a folder of its own.
        """
        self.plan, self.fault = plan, fault
        self.folder = plan.folder / fault
        self.folder.mkdir()
        self.home = home or self.folder / "home"
        shutil.copytree(plan.reference / "datasets", self.home / "datasets")
        self.env = clean_env(DAGSTER_HOME=str(self.folder / "dagster"), OMP_NUM_THREADS="1")
        self.chance = random.Random(f"{plan.seed} {fault}")
        self._number = 0

    def all_is_made(self) -> None:
        """Have the home hold what the reference holds: artefacts, ledger and Dagster's book."""
        shutil.rmtree(self.home)
        shutil.copytree(self.plan.reference, self.home)
        shutil.copytree(self.home / ".dagster", self.folder / "dagster")

    def start(self, *arguments: str, **env: str) -> Run:
        """Start `phi3 run` on the home."""
        self._number += 1
        said = self.folder / f"run-{self._number}.log"
        return Run(self.home, {**self.env, **env}, *TINY, *arguments, said=said)

    def run(self, *arguments: str, **env: str) -> tuple[int, str]:
        """Run `phi3 run` to its end: exit code, and what it said."""
        with self.start(*arguments, **env) as run:
            return run.process.wait(timeout=TIMEOUT_S), run.said

    def midst_of(self, run: Run, stage: str) -> psutil.Process | None:
        """The process of a run that makes this stage, at a moment by chance within its first half; None: too late."""
        found = run.wait_for(rf"Step {stage} \w+ runs in process (\d+)", TIMEOUT_S)
        try:
            process = psutil.Process(int(found[1]))
        except psutil.NoSuchProcess:
            return None
        manifest = read_manifest(self.standing(stage, self.plan.reference))
        time.sleep(self.chance.uniform(0, manifest.ran["seconds"] / 2))
        return process

    def standing(self, stage: str, home: Path | None = None) -> Path:
        """Folder of a stage's latest artefact."""
        store = LocalArtifactStore(home=str(home or self.home))
        ref = self.latest(stage, home)
        assert ref is not None, f"{stage} was never made"
        return Path(store.where(ref))

    def latest(self, stage: str, home: Path | None = None) -> ArtefactRef | None:
        """What a stage was when it was made last."""
        return latest(LocalLedger((home or self.home) / "ledger"), DEFAULT_PRODUCT, stage)

    # What is asked

    def answer(self, stage: str, asked: str, wrong: str = "", skipped: str = "") -> None:
        """Add a finding of this fault."""
        self.plan.findings.add(Finding(self.fault, stage, asked, wrong, skipped))

    def ends_well(self, stage: str, code: int, said: str) -> None:
        """Did a run end with 0?"""
        self.answer(stage, "the next run succeeds", f"it ended with {code}; {_SAYS}{end_of(said)}" if code else "")

    def nothing_is_left(self, stage: str, harmed: Path | None = None) -> None:
        """Does no process go on in the home, and no half artefact stand but one that was harmed on purpose?"""
        processes = workers(self.home)
        alive = [] if gone(processes) else [process.pid for process in processes if process.is_running()]
        self.answer(stage, "no orphan", f"processes {alive} go on" if alive else "")
        self.answer(stage, "no half artefact", "; ".join(half_artefacts(self.home, harmed)))

    def converged(self, *stages: str) -> None:
        """Does each stage hold the bytes that it holds in the reference?"""
        for stage in stages or STAGES:
            self.answer(stage, "the same digest", self.difference(stage))

    def difference(self, stage: str, reference: Path | None = None) -> str:
        """How a stage's latest artefact differs from the reference's; "": it does not."""
        reference = reference or self.plan.reference
        ours, theirs = self.latest(stage), self.latest(stage, reference)
        assert theirs is not None
        if ours is None:
            return "it was never made"
        if stage not in MEASURES:
            same = ours.digest == theirs.digest
            return "" if same else f"{ours.identity[:16]} holds {ours.digest[:16]}, not {theirs.digest[:16]}"
        mine, other = (scores(self.standing(stage, home)) for home in (self.home, reference))
        return "" if mine == other else f"its scores differ: {sorted(mine.items() ^ other.items())}"

    def made_once(self, said: str, *, made: set[str], stage: str = GRAPH) -> None:
        """Did a run make exactly these stages, each once?"""
        told = re.findall(r"Step (\w+) \w+ runs in process", said)
        twice = sorted({one for one in told if told.count(one) > 1})
        wrong = [f"{one} was made twice" for one in twice]
        wrong += [f"{one} was made again" for one in sorted(set(told) - made)]
        wrong += [f"{one} was not made" for one in sorted(made - set(told))]
        self.answer(stage, "nothing lost, nothing doubled", "; ".join(wrong))


def half_artefacts(home: Path, harmed: Path | None = None) -> list[str]:
    """What stands where artefacts stand and is none, or does not hold what its manifest says; `harmed` aside."""
    wrong = []
    for folder in artefact_folders(home):
        if folder == harmed:
            continue
        try:
            if not (folder / MANIFEST).exists():
                wrong.append(f"{folder.relative_to(home)} has no manifest")
            else:
                verify(folder, read_manifest(folder), content=True)
        except UserError as error:
            wrong.append(str(error))
    return wrong


def artefact_folders(home: Path) -> Iterator[Path]:
    """Every folder where a step's artefacts stand holds artefacts alone."""
    for name, step in STEPS.items():
        yield from sorted(path for path in (home / step.folder / name).glob("*") if path.is_dir())


def scores(folder: Path) -> dict[str, float]:
    """What was scored, without what was clocked: of a report its likelihoods and shares, of a release its gate's."""
    found: dict[str, float] = {}

    def walk(path: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{path}.{key}", inner)
        elif isinstance(value, bool | int | float | str) and path.rpartition(".")[2] in _SCORES:
            found[path] = value

    walk("", read_manifest(folder).metrics)
    return found


_SCORES = frozenset({"nll", "exact_match", "token_f1", "items", "stop_rate"})


def end_of(said: str) -> str:
    """The end of what a run said, on one line."""
    return " / ".join(said[-_END_CHARACTERS:].split("\n"))


def is_root() -> bool:
    """Whether this process may mount a small disk."""
    return os.geteuid() == 0
