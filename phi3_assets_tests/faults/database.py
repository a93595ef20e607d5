"""The database in which Dagster keeps its book is restarted."""

import psutil

from phi3_assets_tests.deployment.postgres import HOW, Postgres, dagster_home, programs
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan, Scene


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
        for stage in STAGES:
            if run.process.poll() is not None:
                run = scene.start()
            try:
                scene.midst_of(run, stage)
            except psutil.NoSuchProcess:
                scene.answer(stage, "the restart", skipped="the stage had ended before")
            postgres.stop()
            postgres.start()
        with run:
            run.process.wait(timeout=TIMEOUT_S)
        code, said = scene.run()
    finally:
        postgres.remove()
    for stage in STAGES:
        scene.ends_well(stage, code, said)
        scene.nothing_is_left(stage)
    scene.converged()
