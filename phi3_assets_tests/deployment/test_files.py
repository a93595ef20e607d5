"""What Dockerfile, compose.yaml and dagster.yaml promise: pinned, not as root, seen by nobody who should not."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from phi3_assets.core.home import DAGSTER_YAML
from phi3_assets_tests.deployment.dockerfile import parse

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
INSTANCE = yaml.safe_load((ROOT / "deployment" / "dagster.yaml").read_text())
OWN = {name: service for name, service in COMPOSE["services"].items() if "build" in service}


def test_hadolint_finds_nothing():
    beside = Path(sys.executable).parent
    program = shutil.which("hadolint", path=f"{beside}") or shutil.which("hadolint")
    assert program, "pip install --requirement requirements.lock"
    done = subprocess.run([program, "--no-color", str(ROOT / "Dockerfile")], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_compose_files_keep_its_schema(name):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_target_is_there_and_runs_as_nobody_special():
    stages = parse(ROOT / "Dockerfile")
    cuda = yaml.safe_load((ROOT / "compose.cuda.yaml").read_text())["services"]
    targets = {service["build"]["target"] for service in (*OWN.values(), *cuda.values())}
    assert targets == {"cpu", "cuda", "daemon", "webserver"}
    for target in targets:
        words = list(_instructions(stages, target))
        users = [text for name, text in words if name == "USER"]
        assert int(users[-1]) > 0, target
        assert {"CMD", "HEALTHCHECK"} <= {name for name, _ in words}, target


def _instructions(stages, name):
    """Those of a stage and of what it is from."""
    if name in stages:
        yield from _instructions(stages, stages[name].source)
        yield from stages[name].instructions


def test_images_are_pinned():
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-bookworm$", (ROOT / "Dockerfile").read_text(), re.M)
    images = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert images
    for image in images:
        assert re.fullmatch(r"[\w/.-]+:\d+\.\d+-\w+", image)


def test_only_this_machine_reaches_a_port_and_nobody_the_code_location():
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    assert {name for name, service in COMPOSE["services"].items() if "ports" in service} == {"webserver", "viewer"}
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert "--read-only" in OWN["viewer"]["command"]


def test_only_the_code_location_has_home_and_token():
    for name, service in OWN.items():
        mounts = {volume.partition(":")[0] for volume in service["volumes"]}
        assert ("home" in mounts) == ("env_file" in service) == (name == "location"), name
        assert service["cap_drop"] == ["ALL"]


def test_what_dagster_reads_from_the_environment_is_given():
    asked = set(re.findall(r"\{env: (\w+)\}", (ROOT / "deployment" / "dagster.yaml").read_text()))
    image = set(re.findall(r"\b([A-Z0-9_]+)=", " ".join(re.findall(r"^ENV (?:.*\\\n)*.*", _dockerfile(), re.M))))
    for name, service in OWN.items():
        assert asked <= set(service["environment"]) | image, name


def _dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text()


def test_a_deployment_s_instance_is_ours_with_postgresql():
    ours = yaml.safe_load(DAGSTER_YAML.read_text())
    assert {name: INSTANCE[name] for name in ours} == ours
    assert set(INSTANCE) - set(ours) == {"storage", "compute_logs", "local_artifact_storage"}


def test_no_secret_enters_an_image():
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".env", "location.env", "home", ".git"} <= set(ignored)
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|TOKEN|SECRET|KEY)", _dockerfile(), re.M)
