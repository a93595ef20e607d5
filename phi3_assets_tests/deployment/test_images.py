"""The images are built and compose.yaml's services are run, as both files say it, without a Docker engine."""

import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from pathlib import Path

import pytest
import yaml

from phi3_assets_tests.deployment.dockerfile import Builder, Image, command_beside, command_in
from phi3_assets_tests.deployment.postgres import HOW, PASSWORD, Postgres, programs

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
USER = 10001
# PyPI's, which for machines that cannot reach torch's own index stands for both.
ARGUMENTS = {"TORCH_INDEX": os.environ.get("PIP_INDEX_URL") or "https://pypi.org/simple"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def builder():
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("takes root and namespaces: run it as root on Linux")
    # Not below pytest's own folder, which may be in memory: the images take 8 GB.
    folder = ROOT / "build" / f"images-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        yield Builder(ROOT / "Dockerfile", folder, ARGUMENTS)
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("target", ["webserver", "daemon", "cpu", "cuda"])
def test_what_is_installed_is_what_the_lock_says(builder, target):
    image = builder.build(target)
    locked = set((ROOT / "requirements.lock").read_text().lower().replace("_", "-").split())
    python = ["python", "-c", "import importlib.metadata as m\nfor d in m.distributions(): print(d.name, d.version)"]
    done = subprocess.run(command_in(image, python), capture_output=True, text=True, check=True)
    installed = {
        f"{name}=={version.partition('+')[0]}".lower().replace("_", "-")
        for name, version in (line.split() for line in done.stdout.splitlines())
    }
    # NVIDIA's libraries and triton come with torch, which names their versions; pip came with the base image.
    others = {one for one in installed - locked if not one.startswith(("nvidia-", "triton==", "pip==", "cuda-"))}
    assert others <= {"phi3-assets==0.1.0"}
    assert any(one.startswith("dagster-postgres==") for one in installed)
    assert any(one.startswith("torch==") for one in installed) == (target in ("cpu", "cuda"))


class Deployment:
    """Compose's services as processes in one network of their own, where every service is 127.0.0.1."""

    def __init__(self, builder: Builder, folder: Path) -> None:
        self.name = f"phi3-{uuid.uuid4().hex[:8]}"
        self._builder = builder
        self._folder = folder
        self._running: dict[str, tuple[subprocess.Popen, Image]] = {}
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "netns", "exec", self.name, "ip", "link", "set", "lo", "up"], check=True)
        self.postgres = Postgres(5432, ("ip", "netns", "exec", self.name))

    def start(self, name: str) -> None:
        """Start a service and wait until its health check passes."""
        service = COMPOSE[name]
        image = self._builder.build(service["build"]["target"])
        hosts = image.layers[0] / "etc" / "hosts"
        hosts.parent.mkdir(exist_ok=True)
        hosts.write_text("127.0.0.1 localhost postgres location\n")
        env = {**service["environment"], "PHI3_PG_PASSWORD": PASSWORD}
        mounts = {}
        for volume in service["volumes"]:
            volume, _, place = volume.partition(":")
            mounts[place] = self._folder / volume
            if not mounts[place].exists():
                mounts[place].mkdir()
                os.chown(mounts[place], USER, USER)
        command = command_in(image, service.get("command") or image.command, env, mounts, self.name)
        log = (self._folder / f"{name}.log").open("w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        self._running[name] = process, image
        deadline = time.monotonic() + 180
        while True:
            time.sleep(1)
            assert process.poll() is None, self.log(name)
            healthy = self.exec(name, image.health)
            if healthy.returncode == 0:
                return
            assert time.monotonic() < deadline, f"{healthy.stdout}\n{self.log(name)}"

    def exec(self, name: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        process, image = self._running[name]
        return subprocess.run(
            command_beside(process.pid, image, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def ask(self, query: str, **variables: object) -> dict:
        """What the UI asks the web server, from inside."""
        body = json.dumps({"query": query, "variables": variables})
        command = ["ip", "netns", "exec", self.name, "curl", "--silent", "--fail-with-body", "--data", "@-"]
        command += ["--header", "Content-Type: application/json", "http://127.0.0.1:3000/graphql"]
        done = subprocess.run(command, input=body, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text()[-4000:]

    def stop(self, name: str) -> None:
        """As Compose does: SIGTERM to the first process of the container, SIGKILL to what is left."""
        process, _ = self._running.pop(name)
        subprocess.run(["pkill", "--signal", "TERM", "--parent", str(process.pid)])
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def remove(self) -> None:
        for name in list(self._running):
            self.stop(name)
        self.postgres.remove()
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


LAUNCH = """mutation($p: ExecutionParams!) {launchRun(executionParams: $p) {
__typename ... on LaunchRunSuccess {run {runId}} ... on UnauthorizedError {message} ... on PythonError {message}}}"""
PARAMS = {
    "selector": {
        "jobName": "retrain",
        "repositoryName": "__repository__",
        "repositoryLocationName": "phi3_assets",
    },
    "runConfigData": json.dumps({"resources": {"recipe": {"config": {"recipe": "tiny-test"}}}}),
}


def test_compose_s_services_make_a_release(builder, tmp_path):
    """From the UI's button to the champion; looked on by a UI that may change nothing."""
    if programs() is None:
        pytest.skip(HOW)
    there = Deployment(builder, tmp_path)
    try:
        for name in ("location", "daemon", "webserver"):
            there.start(name)
        doctor = there.exec("location", ["phi3", "doctor"])
        assert doctor.returncode == 0, doctor.stdout
        assert "ok         daemon " in doctor.stdout
        assert "all as /opt/venv/share/phi3-assets/requirements.lock says" in doctor.stdout
        assert there.exec("location", ["id", "-u"]).stdout.strip() == str(USER)
        launched = there.ask(LAUNCH, p=PARAMS)["data"]["launchRun"]
        run_id = launched["run"]["runId"]
        deadline = time.monotonic() + 900
        while True:
            asked = there.ask("query($r: ID!) {runOrError(runId: $r) {... on Run {status}}}", r=run_id)
            status = asked["data"]["runOrError"]["status"]
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                break
            assert time.monotonic() < deadline, there.log("location")
            time.sleep(2)
        assert status == "SUCCESS", there.log("location")
        champion = there.exec("location", ["phi3", "champion", "show"])
        assert "since" in champion.stdout
        there.stop("webserver")
        there.start("viewer")
        refused = there.ask(LAUNCH, p=PARAMS)["data"]["launchRun"]
        assert refused["__typename"] == "UnauthorizedError"
        assert (tmp_path / "home" / "datasets").stat().st_uid == USER
        for name in ("location", "daemon", "webserver", "viewer"):
            assert PASSWORD not in (tmp_path / f"{name}.log").read_text()
    finally:
        there.remove()
