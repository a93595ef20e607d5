"""The same questions to the stand-in, with every suite, and to a real workspace, with `-m azure_live`."""

import os
import uuid

import pytest

from phi3_assets.azure.blobs import remove_folder
from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets_tests.azure_live import acceptance
from phi3_assets_tests.azure_standin import judge

# Read when the tests are collected: while they run the tester's own settings are gone.
LIVE = {name: value for name, value in os.environ.items() if name.startswith(("PHI3_AZURE_", "PHI3_EXECUTION"))}
STANDIN, WORKSPACE = "stand-in", "workspace"


@pytest.fixture(
    params=[pytest.param(STANDIN, marks=pytest.mark.azure), pytest.param(WORKSPACE, marks=pytest.mark.azure_live)]
)
def env(request, monkeypatch):
    """The variables of a workspace, in this process too."""
    if request.param == STANDIN:
        azure = request.getfixturevalue("azure")
        azure.apply(monkeypatch)
        env = {**azure.env, "PHI3_EXECUTION": "azureml", "PHI3_AZURE_POLL_S": "0.3"}
    else:
        # It costs money: neither the variables alone nor a suite that takes whatever there is may start it.
        if "azure_live" not in request.config.option.markexpr or not any(
            name.startswith("PHI3_AZURE_") for name in LIVE
        ):
            pytest.skip("asked for with -m azure_live, and PHI3_AZURE_* naming a workspace")
        env = {"PHI3_EXECUTION": "azureml", **LIVE, "PHI3_AZURE_PREFIX": f"phi3-assets-live/{uuid.uuid4().hex[:8]}"}
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    yield env
    remove_folder(Clients(load_settings()).container, load_settings().prefix)


@pytest.fixture
def to(request):
    """The whole of training on a real workspace; the cheapest asset where each suite asks it."""
    return "raw_dataset" if STANDIN in request.node.name else "lora_adapter"


def test_a_workspace_that_is_ready_is_found_ready(env):
    said = acceptance.is_ready(env)
    assert "wrong" not in said
    assert "a blob was put into" in said


@pytest.mark.timeout(3600)
def test_jobs_make_artefacts_once_and_answers_are_those_of_the_published_types(env, home, to):
    jobs = acceptance.make(to, env, home)
    verdict = acceptance.judged(jobs)
    print("Members and values that Microsoft's published types do not know:", verdict.new)  # with -rP
    assert not any(verdict.wrong.values()), verdict


def test_the_judge_tells_what_is_new_from_what_is_wrong():
    body = {"properties": {"discoveryUrl": 5, "provisioningWarnings": []}}
    wrong, new = judge.surprises("workspaces", "2024-10-01-preview", body)
    assert any("5 is not of type 'string'" in problem for problem in wrong), wrong
    assert any("provisioningWarnings" in problem for problem in new), new
