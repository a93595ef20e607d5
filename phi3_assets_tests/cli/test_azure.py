"""`phi3 azure check`: what is right, what is wrong with the way out, and nothing changed that was not asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from phi3_assets.resources.azureml_check import check_azure
from phi3_assets_tests.conftest import clean_env
from phi3_assets_tests.tiny_graph import PHI3

CANARY = "hf_" + "canary7Yc1qZ0secretxx"


def check(*options: str, **env: str) -> tuple[int, dict[str, tuple[str, str]], str]:
    """Exit code, verdict and text of each question, and all that was printed."""
    done = subprocess.run(
        [*PHI3, "azure", "check", *options], env=clean_env(**env), capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[0] != " "]
    answers = {line[11:22].strip(): (line[:9].strip(), line[24:]) for line in lines}
    return done.returncode, answers, done.stdout + done.stderr


@pytest.fixture
def asked(azure, monkeypatch):
    """The same in this process, which takes a second instead of seven; verdict and text of each question."""

    def ask(**env: str) -> dict[str, tuple[str, str]]:
        azure.apply(monkeypatch)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        return {found.what: (found.verdict, found.told) for found in check_azure()}

    return ask


def test_without_any_setting_the_five_values_are_named_and_how_to_find_each():
    code, answers, said = check()
    assert code == 1
    assert [what for what, (verdict, _) in answers.items() if verdict == "wrong"] == ["settings"]
    for value in ("EXECUTION", "AZURE_SUBSCRIPTION_ID", "AZURE_RESOURCE_GROUP", "AZURE_WORKSPACE", "AZURE_COMPUTE"):
        assert f"\n{' ' * 24}PHI3_{value}: " in said
    assert "`az account show --query id --output tsv`" in said
    assert answers["workspace"] == ("not asked", "settings first")


def test_a_setting_that_is_none_is_named():
    code, answers, _ = check(PHI3_AZURE_WORKSPAC="ws")
    assert code == 1
    assert "PHI3_AZURE_WORKSPAC is no setting. Did you mean 'PHI3_AZURE_WORKSPACE'?" in answers["settings"][1]


def test_an_execution_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("PHI3_EXECUTION", "azure")
    answers = {found.what: found.told for found in check_azure()}
    assert "PHI3_EXECUTION='azure': choose one of local, azureml, azure_arc." in answers["settings"]


def test_without_the_extra_the_command_that_installs_it_is_told(tmp_path: Path):
    """The very interpreter, in which a package cannot be found, as if it had not been installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith('azure.keyvault'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Gone())\n"
    )
    code, answers, _ = check(PYTHONPATH=f"{tmp_path}:{':'.join(sys.path)}")
    assert code == 1
    told = "not installed: azure.keyvault.secrets. Get them with `pip install 'phi3-assets[azure]'`."
    assert answers["packages"] == ("wrong", told)
    assert answers["settings"] == ("not asked", "packages first")


def test_a_store_that_jobs_cannot_read_is_told_before_a_job_is_refused(monkeypatch):
    for name in ("SUBSCRIPTION_ID", "RESOURCE_GROUP", "WORKSPACE", "COMPUTE"):
        monkeypatch.setenv(f"PHI3_AZURE_{name}", "x")
    monkeypatch.setenv("PHI3_EXECUTION", "azureml")
    monkeypatch.setenv("PHI3_STORE", "local")
    answers = {found.what: found.told for found in check_azure()}
    assert answers["settings"].startswith("PHI3_STORE=local, but a job reads and writes artefacts of a store in Azure.")


@pytest.mark.azure
def test_serverless_has_no_cluster_to_ask_about(asked):
    answers = asked(PHI3_AZURE_COMPUTE="serverless", PHI3_AZURE_TIER="spot", PHI3_AZURE_IDENTITY="user")
    assert answers["compute"] == ("ok", "serverless, a size that the service chooses")
    assert answers["identity"] == ("ok", "jobs act as whoever submits them")
    assert answers["quota"][0] == "not asked"
    wrong = asked(PHI3_AZURE_COMPUTE="serverless", PHI3_AZURE_TIER="low_priority")
    assert wrong["compute"] == ("wrong", "PHI3_AZURE_TIER=low_priority: with serverless it is called spot.")


@pytest.mark.azure
def test_who_may_not_read_the_subscription_s_quota_is_not_told_that_the_compute_is_wrong(azure, asked):
    azure.fault(method="GET", path="/usages$", kind="forbidden", times=-1)
    assert asked()["quota"] == ("not asked", "takes the right to read the subscription (role Reader)")


@pytest.mark.azure
def test_a_workspace_that_is_ready(azure):
    azure.secret("hf-token", CANARY)
    code, answers, said = check(**azure.env, PHI3_EXECUTION="azureml", PHI3_AZURE_HF_TOKEN_SECRET="hf-token")
    assert code == 0, said
    verdicts = {what: verdict for what, (verdict, _) in answers.items()}
    assert verdicts.pop("writing") == "not asked"
    assert set(verdicts.values()) == {"ok"}
    assert "compute cluster cpu-cluster, STANDARD_DS2_V2, dedicated, up to 4 nodes" in answers["compute"][1]
    assert "8 of 24 cores of standardDSv2Family in use; a training takes 2" in answers["quota"][1]
    assert "system_assigned" in answers["identity"][1].lower()
    assert "will be made with the first job" in answers["environment"][1]
    assert CANARY not in said
    assert said.count("\n") == len(answers)  # a line each, and nothing of the clients' own
    changed = [one for one in azure.traffic() if one["method"] in ("PUT", "DELETE", "PATCH")]
    assert changed == []


@pytest.mark.azure
def test_what_is_asked_for_is_made_and_the_blob_removed(azure, asked):
    code, answers, said = check("--write", "--create-environment", **azure.env)
    assert code == 0, said
    assert "a blob was put into phi3-assets/ and removed" in answers["writing"][1]
    assert "was made; the first job builds its image" in answers["environment"][1]
    answers = asked()
    assert "phi3-assets/ is empty" in answers["datastore"][1]
    assert "is there" in answers["environment"][1]


@pytest.mark.azure
@pytest.mark.parametrize(
    ("env", "what", "told"),
    [
        ({"AZURE_CLIENT_SECRET": "wrong"}, "credential", "Log in with `az login`"),
        ({"PHI3_AZURE_WORKSPACE": "other"}, "workspace", "`az ml workspace list --resource-group standin-group"),
        ({"PHI3_AZURE_COMPUTE": "none"}, "compute", "`az ml compute create --type amlcompute --name none"),
        ({"PHI3_AZURE_COMPUTE": "none", "PHI3_EXECUTION": "azure_arc"}, "compute", "`az ml compute attach --type Kub"),
        ({"PHI3_AZURE_INSTANCE_COUNT": "5"}, "compute", "`az ml compute update --name cpu-cluster"),
        ({"PHI3_AZURE_COMPUTE": "broken-cluster"}, "compute", "ClusterMinNodesExceedCoreQuota"),
        ({"PHI3_AZURE_COMPUTE": "bare-cluster"}, "identity", "`az ml compute update --name bare-cluster"),
        ({"PHI3_AZURE_DATASTORE": "none"}, "datastore", "`az ml datastore list"),
        ({"PHI3_AZURE_HF_TOKEN_SECRET": "none"}, "secret", "`az keyvault secret set --vault-name"),
        ({"PHI3_AZURE_ENVIRONMENT": "azureml:mine:1"}, "environment", "`az ml environment list"),
        ({"PHI3_EXECUTION": "azureml", "PHI3_EXECUTION_LORA_ADAPTER": "azure_arc"}, "compute", "is one compute"),
    ],
)
def test_what_is_wrong_is_told_with_the_command_that_mends_it(asked, env, what, told):
    answers = asked(**env)
    assert answers[what][0] == "wrong", answers
    assert told in answers[what][1]
    if what not in ("credential", "workspace"):
        # It goes on: the others still say something.
        assert answers["environment" if what != "environment" else "datastore"][0] == "ok", answers
    if "none" in env.get("PHI3_AZURE_COMPUTE", ""):
        assert answers["identity"] == answers["quota"] == ("not asked", "compute first")
    if what == "workspace":
        assert answers["datastore"] == ("not asked", "workspace first")


@pytest.mark.azure
@pytest.mark.parametrize(
    ("instance_type", "verdict", "told"),
    [
        ("gpu-a100", "ok", "instance type gpu-a100, 1 GPU"),
        ("cpu-small", "ok", "instance type cpu-small, no GPU"),
        ("gpu-b200", "wrong", "has no such instance type. It has cpu-small, defaultinstancetype, gpu-a100."),
        ("", "wrong", "PHI3_AZURE_INSTANCE_TYPE is not set"),
    ],
)
def test_arc_says_whether_its_instance_type_has_a_gpu(asked, instance_type, verdict, told):
    arc = {"PHI3_EXECUTION": "azure_arc", "PHI3_AZURE_COMPUTE": "arc-cluster"}
    answers = asked(**arc, PHI3_AZURE_INSTANCE_TYPE=instance_type)
    assert answers["compute"][0] == verdict
    assert told in answers["compute"][1]


@pytest.mark.azure
@pytest.mark.parametrize("compute", ["cpu-cluster", "spot-cluster"])
def test_a_quota_that_is_too_small_is_told_before_a_job_waits_for_ever(azure, asked, compute):
    assert asked(PHI3_AZURE_COMPUTE=compute)["quota"][0] == "ok"
    azure.quota(1)
    answers = asked(PHI3_AZURE_COMPUTE=compute)
    assert answers["quota"][0] == "wrong"
    assert "1 nodes of STANDARD_DS2_V2 have 2 cores, and the quota" in answers["quota"][1]


@pytest.mark.azure
@pytest.mark.parametrize(("path", "what"), [("/workspaces/standin-[0-9]+$", "workspace"), ("/computes/", "compute")])
def test_a_right_that_is_missing_is_named_and_the_rest_still_asked(azure, asked, path, what):
    azure.fault(path=path, method="GET", host="management.azure.com", kind="forbidden", times=-1)
    answers = asked()
    assert answers[what][0] == "wrong", answers
    assert "needs the role 'AzureML Data Scientist' on the workspace" in answers[what][1]
    assert answers["environment"][0] == "ok", answers
