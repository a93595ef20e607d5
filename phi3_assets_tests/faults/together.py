"""Runs beside one another and in a row, data that changes under them, and a clock that is set back."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan, Scene
from phi3_assets_tests.tiny_graph import Run, gone, workers

DATA = "codes.csv"
_DAYS_BACK = 3
_SET_BACK = Path(__file__).with_name("set_back.c")


def two_graphs(plan: Plan) -> None:
    """Two runs of the same graph at once: each artefact is made by one of them, and both end well."""
    scene = Scene(plan, "two graphs at once")
    with scene.start() as first, scene.start() as second:
        ends = [(run.process.wait(timeout=TIMEOUT_S), run.said) for run in (first, second)]
    for code, said in ends:
        scene.ends_well(GRAPH, code, said)
    scene.made_once("".join(said for _, said in ends), made=set(STAGES))
    scene.nothing_is_left(GRAPH)
    scene.converged()


def data_changed(plan: Plan) -> None:
    """The files change while a run is at work and a second one starts: each makes what its own data calls for."""
    scene = Scene(plan, "data changed between")
    newer = _alone(scene)
    with scene.start() as first:
        first.wait_for("Step formatted_corpus", TIMEOUT_S)
        change(scene.home / "datasets", 1)
        with scene.start() as second:
            ends = [(run.process.wait(timeout=TIMEOUT_S), run.said) for run in (first, second)]
    for code, said in ends:
        scene.ends_well(GRAPH, code, said)
    scene.nothing_is_left(GRAPH)
    for stage in STAGES:
        scene.answer(stage, "the digest of the newer data", scene.difference(stage, newer))
    shutil.copy(plan.reference / "datasets" / DATA, scene.home / "datasets" / DATA)
    code, said = scene.run()
    scene.ends_well(GRAPH, code, said)
    scene.made_once(said, made=set())
    scene.converged()


def clock_back(plan: Plan) -> None:
    """The clock is set back by days in the midst of each stage, for every process of the run and for the next run."""
    scene = Scene(plan, "clock set back")
    library = scene.folder / "set_back.so"
    compiler = shutil.which("cc")
    if compiler is None:
        scene.answer(GRAPH, "the fault", skipped="no C compiler; on Debian: apt-get install gcc")
        return
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(_SET_BACK), "-ldl"], check=True)
    days = scene.folder / "days"
    days.touch()
    clock = {"LD_PRELOAD": str(library), "PHI3_FAULT_DAYS": str(days)}
    with scene.start(**clock) as run:
        for stage in STAGES:
            scene.midst_of(run, stage)
            with days.open("a") as file:
                file.write("x" * _DAYS_BACK)
        code, said = run.process.wait(timeout=TIMEOUT_S), run.said
    scene.ends_well(GRAPH, code, said)
    scene.made_once(said, made=set(STAGES))
    scene.converged()
    # Made later than what stands, by a clock that says that it was made before.
    with days.open("a") as file:
        file.write("x" * _DAYS_BACK)
    newer = _alone(scene)
    change(scene.home / "datasets", 1)
    scene.ends_well(GRAPH, *scene.run(**clock))
    for stage in STAGES:
        scene.answer(stage, "the digest of the newer data", scene.difference(stage, newer))
    scene.nothing_is_left(GRAPH)


def many_runs(plan: Plan) -> None:
    """Runs in a row, with data that changes or not and every fourth killed: no retrain is lost, and none done twice."""
    scene = Scene(plan, f"{plan.runs} runs in a row")
    known: set[int] = set()
    pending: set[int] = set()
    version = 0
    for number in range(plan.runs):
        version = scene.chance.choice([version, number, scene.chance.randrange(number + 1)])
        change(scene.home / "datasets", version)
        if scene.chance.random() < 1 / 4:
            with scene.start("--to", "formatted_corpus") as run:
                _kill_by_chance(scene, run)
            pending.add(version)
            scene.nothing_is_left(GRAPH)
            continue
        first = {"base_model"} if scene.latest("base_model") is None else set()
        code, said = scene.run("--to", "formatted_corpus")
        scene.ends_well(GRAPH, code, said)
        if version in known:
            scene.made_once(said, made=set())
        elif version not in pending:
            scene.made_once(said, made={"raw_dataset", "formatted_corpus"} | first)
        known.add(version)
        scene.nothing_is_left(GRAPH)
    change(scene.home / "datasets", 0)
    code, said = scene.run()
    scene.ends_well(GRAPH, code, said)
    scene.converged()


def _alone(scene: Scene) -> Path:
    """A home in which the newer data was trained on after the reference's, with nothing happening."""
    other = Scene(scene.plan, f"{scene.fault}, alone")
    other.all_is_made()
    change(other.home / "datasets", 1)
    scene.ends_well(GRAPH, *other.run())
    return other.home


def _kill_by_chance(scene: Scene, run: Run) -> None:
    """Somewhere between its first line and the end of its second step."""
    try:
        run.process.wait(timeout=scene.chance.uniform(1, 8))
    except subprocess.TimeoutExpired:
        os.kill(run.process.pid, signal.SIGKILL)
        run.process.wait()
    gone(workers(scene.home))


def change(datasets: Path, version: int) -> None:
    """Give the data a version: 0 is the reference's, any other has a row of its own."""
    lines = (datasets / DATA).read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith("Which version")]
    if version:
        kept.append(f"Which version is number {version}?,Version {version} it is.\n")
    new = datasets / f".{DATA}.new"
    new.write_text("".join(kept), encoding="utf-8")
    new.replace(datasets / DATA)
