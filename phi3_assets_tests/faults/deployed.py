"""A deployment's processes are killed, one at a time, in the midst of each stage, and started again."""

import time

from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.faults.findings import GRAPH, STAGES
from phi3_assets_tests.faults.scene import TIMEOUT_S, Plan, Scene
from phi3_assets_tests.servers import Deployment
from phi3_assets_tests.tiny_graph import executing, workers

ENDS = ("SUCCESS", "FAILURE", "CANCELED")
_TINY = {"resources": {"recipe": {"config": {"recipe": "tiny-test"}}}}
_TICK_S = 35.0
_VERSION = "phi3/data_version"


def daemon(plan: Plan) -> None:
    """The daemon is killed: the run that its sensor started goes on, and the sensor starts no second one."""
    _server_killed(plan, "daemon", by_sensor=True)


def webserver(plan: Plan) -> None:
    """The web server is killed: the run goes on."""
    _server_killed(plan, "webserver", by_sensor=False)


def code_server(plan: Plan) -> None:
    """The code server is killed: its run goes on, or fails and is started again; nobody works for a dead one."""
    _server_killed(plan, "code server", by_sensor=False)


def run_worker(plan: Plan) -> None:
    """The process that executes the run is killed: Dagster is told, the worker ends, and the next run goes on."""
    scene = Scene(plan, "run worker killed")
    deployment = _deploy(scene)
    try:
        for stage in STAGES:
            run_id = deployment.graphql.launch(_TINY)
            executing(_wait_for(scene, stage)).kill()
            status = deployment.graphql.wait_for_status(run_id, *ENDS, timeout_s=TIMEOUT_S)
            scene.answer(stage, "Dagster is told", "" if status == "FAILURE" else f"the run is {status}")
            scene.nothing_is_left(stage)
        _goes_well(scene, deployment)
    finally:
        deployment.stop()
    scene.converged()


def _server_killed(plan: Plan, name: str, by_sensor: bool) -> None:
    scene = Scene(plan, f"{name} killed")
    deployment = _deploy(scene)
    graphql = deployment.graphql
    try:
        run_id = ""
        if by_sensor:
            graphql.start_sensor("new_data")
        for stage in STAGES:
            if not by_sensor and (not run_id or graphql.status(run_id) in ENDS):
                run_id = graphql.launch(_TINY)
            _wait_for(scene, stage)
            deployment.kill(name)
            scene.answer(stage, "the kill")
            deployment.start(name)
            deployment.wait_until_up(TIMEOUT_S)
        runs = graphql.runs()
        for run in runs:
            graphql.wait_for_status(run["runId"], *ENDS, timeout_s=TIMEOUT_S)
        if by_sensor:
            time.sleep(_TICK_S)
            _started_once(scene, deployment)
        else:
            _goes_well(scene, deployment)
        for stage in STAGES:
            scene.nothing_is_left(stage)
    finally:
        deployment.stop()
    scene.converged()


def _deploy(scene: Scene) -> Deployment:
    """On a home of its own; with Dagster's instance as `phi3 init` lays it out."""
    from phi3_assets.core.home import DAGSTER_YAML

    dagster = scene.folder / "dagster"
    dagster.mkdir()
    (dagster / "dagster.yaml").write_text(DAGSTER_YAML.read_text(encoding="utf-8"), encoding="utf-8")
    own = {"PHI3_HOME": str(scene.home), "DAGSTER_HOME": str(dagster), "PHI3_RECIPE": "tiny-test"}
    deployment = Deployment(scene.folder, clean_env(OMP_NUM_THREADS="1", **own))
    deployment.wait_until_up(TIMEOUT_S)
    return deployment


def _wait_for(scene: Scene, stage: str) -> list:
    """The worker of a stage, as soon as it is there; none where the stage has ended before it was seen."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        found = workers(scene.home, stage)
        if found or scene.latest(stage) is not None:
            return found
        assert time.monotonic() < deadline, f"{stage} did not begin"
        time.sleep(0.02)


def _goes_well(scene: Scene, deployment: Deployment) -> None:
    """One more run succeeds."""
    run_id = deployment.graphql.launch(_TINY)
    status = deployment.graphql.wait_for_status(run_id, *ENDS, timeout_s=TIMEOUT_S)
    scene.answer(GRAPH, "the next run succeeds", "" if status == "SUCCESS" else f"it is {status}")


def _started_once(scene: Scene, deployment: Deployment) -> None:
    """The sensor started one run for the one data version, which succeeded."""
    told = [f"{run['status']} {run['tags'].get(_VERSION, '')}" for run in deployment.graphql.runs()]
    one = len(told) == 1 and told[0].startswith("SUCCESS")
    scene.answer(GRAPH, "one retrain for one data version", "" if one else f"runs: {', '.join(told)}")
