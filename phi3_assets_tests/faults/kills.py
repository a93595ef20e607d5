"""Somebody, or the kernel that runs out of memory, kills a process with SIGKILL in the midst of each stage."""

import re

import psutil

from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan, Scene


def worker(plan: Plan) -> None:
    """The worker of each stage is killed once; the run says so, tries it again and ends well."""
    scene = Scene(plan, "worker killed")
    with scene.start() as run:
        for stage in STAGES:
            if not _killed(scene.midst_of(run, stage)):
                scene.answer(stage, "the kill", skipped="the stage had ended before")
        code, said = run.process.wait(timeout=TIMEOUT_S), run.said
    for stage in STAGES:
        tries = len(re.findall(rf"Step {stage} \w+ runs in process", said))
        killed = said.count(f"{stage}: The worker was killed (SIGKILL)")
        scene.answer(stage, "tried again, once", "" if tries == 1 + killed else f"{killed} kills, {tries} tries")
    scene.ends_well(GRAPH, code, said)
    _settled(scene)


def run(plan: Plan) -> None:
    """The process of the run is killed in the midst of each stage; its worker ends, and the next run goes on there."""
    scene = Scene(plan, "run killed")
    finished: set[str] = set()
    for stage in STAGES:
        with scene.start() as going:
            scene.midst_of(going, stage)
            going.process.kill()
            going.process.wait()
            scene.nothing_is_left(stage)
            again = {one for one in finished if f"Step {one} " in going.said}
        scene.answer(stage, "what was finished is reused", f"made again: {', '.join(sorted(again))}" if again else "")
        finished |= {one for one in STAGES[: STAGES.index(stage)] if scene.latest(one) is not None}
    _settled(scene)


def _killed(process: psutil.Process | None) -> bool:
    """Kill it, unless it has ended."""
    if process is None:
        return False
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return False
    return True


def _settled(scene: Scene) -> None:
    """The next run ends well, with the bytes of an undisturbed one."""
    code, said = scene.run()
    scene.ends_well(GRAPH, code, said)
    scene.converged()
    scene.nothing_is_left(GRAPH)
