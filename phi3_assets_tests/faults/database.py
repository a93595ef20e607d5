"""The database in which Dagster keeps its book is restarted."""

from phi3_assets_tests.deployment.postgres import HOW, Postgres, dagster_home, programs
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan, Scene
from phi3_assets_tests.tiny_graph import Run


def restarted(plan: Plan) -> None:
    """PostgreSQL is restarted in the midst of each stage: the run goes on, or ends and the next one does."""
    scene = Scene(plan, "PostgreSQL restart")
    if programs() is None:
        scene.answer(GRAPH, "the fault", skipped=HOW)
        return
    postgres = Postgres()
    try:
        dagster_home(scene.folder / "dagster")
        scene.env |= {**postgres.environment, "PHI3_LOGS": str(scene.folder / "logs")}
        run = scene.start()
        try:
            for stage in STAGES:
                run = _reach(scene, run, stage)
                postgres.stop()
                postgres.start()
            run.process.wait(timeout=TIMEOUT_S)
        finally:
            run.process.kill()
            run.process.wait()
        code, said = scene.run()
    finally:
        postgres.remove()
    scene.ends_well(GRAPH, code, said)
    scene.nothing_is_left(GRAPH)
    scene.converged()


def _reach(scene: Scene, run: Run, stage: str) -> Run:
    """A run that is in the midst of a stage: this one, or another where the restart before ended it."""
    for _ in range(2):
        try:
            scene.midst_of(run, stage)
        except AssertionError:
            if run.process.poll() is None:
                raise
            scene.nothing_is_left(stage)
            run = scene.start()
        else:
            scene.answer(stage, "the restart")
            return run
    scene.answer(stage, "the restart", skipped="the stage had ended before")
    return run
