"""A deployment's processes are killed, one at a time, in the midst of each stage, and started again."""

import shutil
import time

import psutil

from phi3_assets.core.home import DAGSTER_YAML
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan, Scene
from phi3_assets_tests.faults.together import change
from phi3_assets_tests.servers import Deployment
from phi3_assets_tests.tiny_graph import executing, workers

ENDS = ("SUCCESS", "FAILURE", "CANCELED")
_TINY = {"resources": {"recipe": {"config": {"recipe": "tiny-test"}}}}
_TICK_S = 35.0
_POLL_S = 0.02


def daemon(plan: Plan) -> None:
    """The daemon is killed: the run goes on, and a sensor that had asked for a run asks for no second one."""
    scene, deployment = _server_killed(plan, "daemon")
    try:
        deployment.graphql.start_sensor("new_data")
        before = {run["runId"] for run in deployment.graphql.runs()}
        change(scene.home / "datasets", 1)
        raw = scene.standing("raw_dataset")
        deadline = time.monotonic() + TIMEOUT_S
        while not workers(scene.home, "raw_dataset") and scene.standing("raw_dataset") == raw:
            assert time.monotonic() < deadline, "the sensor started nothing"
            time.sleep(_POLL_S)
        deployment.kill("daemon")
        deployment.start("daemon")
        time.sleep(2 * _TICK_S)
        told = []
        for run in deployment.graphql.runs():
            if run["runId"] not in before:
                told.append(deployment.graphql.wait_for_status(run["runId"], *ENDS, timeout_s=TIMEOUT_S))
        scene.answer(GRAPH, "one retrain for new data", "" if told == ["SUCCESS"] else f"runs: {', '.join(told)}")
        scene.nothing_is_left(GRAPH)
    finally:
        deployment.stop()


def webserver(plan: Plan) -> None:
    """The web server is killed: the run goes on."""
    _, deployment = _server_killed(plan, "webserver")
    deployment.stop()


def code_server(plan: Plan) -> None:
    """The code server is killed: its run goes on, or fails and the next one does; nobody works for a dead one."""
    _, deployment = _server_killed(plan, "code server", may_fail=True)
    deployment.stop()


def run_worker(plan: Plan) -> None:
    """The process that executes the run is killed: Dagster is told, its worker ends, and the next run goes on."""
    scene = Scene(plan, "run worker killed")
    deployment = _deploy(scene)
    try:
        for stage in STAGES:
            run_id, found = _launch(scene, deployment, stage)
            if found:
                executing(found).kill()
                status = deployment.graphql.wait_for_status(run_id, *ENDS, timeout_s=TIMEOUT_S)
                scene.answer(stage, "Dagster is told", "" if status == "FAILURE" else f"the run is {status}")
                scene.nothing_is_left(stage)
            _goes_well(scene, deployment, stage)
    finally:
        deployment.stop()
    scene.converged()


def _server_killed(plan: Plan, name: str, may_fail: bool = False) -> tuple[Scene, Deployment]:
    """Kill a server while a stage is made anew, for each stage; gives what goes on."""
    scene = Scene(plan, f"{name} killed")
    deployment = _deploy(scene)
    try:
        for stage in STAGES:
            run_id, _ = _launch(scene, deployment, stage)
            deployment.kill(name)
            deployment.start(name)
            deployment.wait_until_up(TIMEOUT_S)
            status = deployment.graphql.wait_for_status(run_id, *ENDS, timeout_s=TIMEOUT_S)
            good = status == "SUCCESS" or (may_fail and status == "FAILURE")
            scene.answer(stage, "the run goes on", "" if good else f"it is {status}")
            scene.nothing_is_left(stage)
            if status != "SUCCESS":
                _goes_well(scene, deployment, stage)
        scene.converged()
    except BaseException:
        deployment.stop()
        raise
    return scene, deployment


def _deploy(scene: Scene) -> Deployment:
    """On a home in which all is made; with Dagster's instance as `phi3 init` lays it out."""
    scene.all_is_made()
    (scene.folder / "dagster" / "dagster.yaml").write_bytes(DAGSTER_YAML.read_bytes())
    own = {"PHI3_HOME": str(scene.home), "DAGSTER_HOME": str(scene.folder / "dagster"), "PHI3_RECIPE": "tiny-test"}
    deployment = Deployment(scene.folder, clean_env(OMP_NUM_THREADS="1", **own))
    try:
        deployment.wait_until_up(TIMEOUT_S)
    except BaseException:
        deployment.stop()
        raise
    return deployment


def _launch(scene: Scene, deployment: Deployment, stage: str) -> tuple[str, list[psutil.Process]]:
    """A run that has to make this stage anew, and its worker; none where it had ended before it was seen."""
    folder = scene.standing(stage)
    shutil.rmtree(folder)
    run_id = deployment.graphql.launch(_TINY)
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := workers(scene.home, stage)) and not folder.exists():
        assert time.monotonic() < deadline, f"{stage} did not begin"
        time.sleep(_POLL_S)
    if not found:
        scene.answer(stage, "the kill", skipped="the stage had ended before")
    return run_id, found


def _goes_well(scene: Scene, deployment: Deployment, stage: str) -> None:
    """One more run succeeds."""
    run_id = deployment.graphql.launch(_TINY)
    status = deployment.graphql.wait_for_status(run_id, *ENDS, timeout_s=TIMEOUT_S)
    scene.answer(stage, "the next run succeeds", "" if status == "SUCCESS" else f"it is {status}")
