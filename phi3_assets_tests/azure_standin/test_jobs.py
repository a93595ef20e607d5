"""Jobs of unmodified clients, as real processes."""

import json
import os
import time

import pytest
from azure.ai.ml import Input, Output, PyTorchDistribution
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from phi3_assets_tests.azure_standin import warden
from phi3_assets_tests.azure_standin.submitting import ROOT, log_of, submit

pytestmark = pytest.mark.azure


def test_a_job_with_code_input_and_output(azure, clients, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("print(open('note.txt').read())")
    (tmp_path / "code" / "note.txt").write_text("from the code")
    clients.container.upload_blob("in/deep/a.txt", b"from the input")
    long = f"azureml:/{clients.settings.scope}/datastores/workspaceblobstore/paths/in/".replace(
        "/providers/Microsoft.MachineLearningServices", ""
    )
    name = submit(
        clients,
        "python main.py && cat ${{inputs.data}}/deep/a.txt ${{inputs.same}}/deep/a.txt && "
        "echo ${{inputs.epochs}} > ${{outputs.model}}/m.txt && echo kept > outputs/note.txt",
        code=str(tmp_path / "code"),
        inputs={
            "data": Input(type="uri_folder", path=f"{ROOT}/in/"),
            "same": Input(type="uri_folder", path=long),
            "epochs": 3,
        },
        outputs={"model": Output(type="uri_folder", path=f"{ROOT}/out/", mode="upload")},
    )
    first = azure.traffic("PUT", "management", f"/jobs/{name}")[0]
    assert (first["status"], first["response"]["properties"]["status"]) == (201, "Starting")
    assert "default" in first["response"]["properties"]["outputs"]
    job = azure.wait_for(name, "Completed")
    assert job["history"] == ["Starting", "Preparing", "Running", "Finalizing", "Completed"]
    assert clients.container.download_blob("out/m.txt").readall() == b"3\n"
    assert log_of(clients, name) == "from the code\nfrom the inputfrom the input"
    assert log_of(clients, name, "../outputs/note.txt") == "kept\n"
    assert clients.ml.jobs.get(name).status == "Completed"


def test_a_job_sees_what_a_node_has_and_nothing_of_the_tester(azure, clients, monkeypatch):
    monkeypatch.setenv("PHI3_HOME", "/somewhere")
    name = submit(clients, "env -0 | tr '\\0' '\\n' && pwd && ls -a", environment_variables={"OF_THE_JOB": "yes"})
    azure.wait_for(name, "Completed")
    seen = dict(line.split("=", 1) for line in log_of(clients, name).splitlines() if "=" in line)
    assert seen["OF_THE_JOB"] == "yes"
    assert seen["AZUREML_RUN_ID"] == name
    assert not [variable for variable in seen if variable.startswith(("PHI3_", "DAGSTER_", "AZURE_", "PYTEST"))]
    assert seen["HOME"] != os.environ.get("HOME")


def test_a_failed_job_says_why(azure, clients):
    name = submit(clients, "echo last words >&2; exit 3")
    azure.wait_for(name, "Failed")
    azure.warn(name, "AzureMLCompute job failed")
    assert log_of(clients, name) == "last words\n"
    run = clients.ml.jobs._runs_operations.get_run_data(name).run_metadata
    assert "status code 3" in run.error.error.message
    assert [warning.message for warning in run.warnings] == ["AzureMLCompute job failed"]


def test_an_input_that_is_not_there_fails_the_job_when_it_runs(azure, clients):
    name = submit(clients, "true ${{inputs.data}}", inputs={"data": Input(type="uri_folder", path=f"{ROOT}/nothing/")})
    azure.wait_for(name, "Failed")


def test_cancel_ends_every_process(azure, clients):
    long = str(100_000 + os.getpid())
    ignores = f"trap '' TERM; (trap '' TERM; setsid sleep {long}) & while true; do sleep 1; done"
    name = submit(clients, "trap 'echo asked to stop; exit 1' TERM; while true; do sleep 0.1; done")
    azure.wait_for(name, "Running")
    stubborn = submit(clients, ignores)
    azure.wait_for(stubborn, "Running")
    clients.ml.jobs.begin_cancel(name).wait()
    assert clients.ml.jobs.get(name).status == "Canceled"
    assert "asked to stop" in log_of(clients, name)
    clients.ml.jobs.begin_cancel(stubborn)
    azure.wait_for(stubborn, "Canceled")
    assert azure.job(stubborn)["history"][-2:] == ["CancelRequested", "Canceled"]
    azure.wait_closed(stubborn)
    assert [process.cmdline() for process in warden.members("standin-") if long in process.cmdline()] == []


def test_a_cancel_may_hang_and_a_job_may_stay_queued(azure, clients):
    azure.hang_cancels()
    azure.hold("spot-cluster")
    queued = submit(clients, "true", compute="spot-cluster")
    azure.wait_for(queued, "Queued")
    clients.ml.jobs.begin_cancel(queued)
    azure.wait_for(queued, "CancelRequested")
    time.sleep(0.5)
    assert azure.job(queued)["status"] == "CancelRequested"
    azure.hang_cancels(False)
    azure.wait_for(queued, "Canceled")


def test_the_time_limit_ends_a_job_as_cancelled(azure, clients):
    from azure.ai.ml.entities import CommandJobLimits

    name = submit(clients, "sleep 100", limits=CommandJobLimits(timeout=1))
    azure.wait_for(name, "Canceled")
    run = clients.ml.jobs._runs_operations.get_run_data(name).run_metadata
    assert "maximum run duration" in run.cancelation_reason


def test_two_nodes_of_two_processes_are_four_ranks(azure, clients):
    text = "echo $RANK $LOCAL_RANK $NODE_RANK $WORLD_SIZE $MASTER_ADDR > ${{outputs.all}}/$RANK"
    name = submit(
        clients,
        text,
        instance_count=2,
        distribution=PyTorchDistribution(process_count_per_instance=2),
        outputs={"all": Output(type="uri_folder", path=f"{ROOT}/ranks/", mode="rw_mount")},
    )
    azure.wait_for(name, "Completed")
    ranks = [clients.container.download_blob(f"ranks/{rank}").readall().decode().split() for rank in range(4)]
    assert [rank[:4] for rank in ranks] == [
        ["0", "0", "0", "4"],
        ["1", "1", "0", "4"],
        ["2", "0", "1", "4"],
        ["3", "1", "1", "4"],
    ]
    assert log_of(clients, name, "std_log_process_3.txt") == ""


def test_one_rank_that_fails_fails_the_job(azure, clients):
    name = submit(
        clients,
        "[ $RANK = 1 ] && exit 7; sleep 1000",
        distribution=PyTorchDistribution(process_count_per_instance=2),
    )
    azure.wait_for(name, "Failed")


def test_the_answer_to_a_submission_is_lost(azure, clients):
    azure.fault(method="PUT", path="/jobs/", kind="lost")
    with pytest.raises(HttpResponseError, match="already exists") as refused:
        submit(clients, "true", name="once")
    assert refused.value.status_code == 400
    assert [job["name"] for job in azure.jobs()] == ["once"]
    inner = next(more for more in refused.value.error.additional_info if more.type == "InnerError")
    assert inner.info["value"]["innerError"]["code"] == "JobPropertyImmutable"


def test_what_may_change_is_changed(azure, clients):
    name = submit(clients, "true", experiment_name="e")
    job = clients.ml.jobs.get(name)
    job.tags = {"a": "b"}
    assert clients.ml.jobs.create_or_update(job).tags == {"a": "b"}


def test_kubernetes_wants_an_instance_type_that_it_has(azure, clients):
    with pytest.raises(HttpResponseError, match="gpu-b200"):
        submit(clients, "true", compute="arc-cluster", instance_type="gpu-b200")
    azure.wait_for(submit(clients, "true", compute="arc-cluster", instance_type="gpu-a100"), "Completed")


def test_a_job_without_a_compute_is_serverless(azure, clients):
    name = submit(clients, "true", compute=None, job_tier="Spot", instance_type="Standard_DS2_v2")
    assert azure.wait_for(name, "Completed")["properties"]["queueSettings"] == {"jobTier": "Spot"}


def test_compute_environment_and_node_count_must_be_there(azure, clients):
    for wrong in ({"compute": "no-cluster"}, {"environment": "azureml:phi3:2"}, {"instance_count": 5}):
        with pytest.raises(HttpResponseError):
            submit(clients, "true", **wrong)
    with pytest.raises(ResourceNotFoundError):
        clients.ml.compute.get("no-cluster")
    with pytest.raises(ResourceNotFoundError):
        clients.ml.jobs.get("no-job")
    assert azure.jobs() == []


def test_jobs_wait_for_nodes(azure, clients):
    first = submit(clients, "sleep 1", instance_count=4)
    azure.wait_for(first, "Running")
    second = submit(clients, "true")
    azure.wait_for(second, "Completed")
    assert "Queued" in azure.job(second)["history"]


def test_inside_a_job_its_identity_reads_a_secret_and_writes_a_blob(azure, clients, tmp_path):
    azure.secret("hf-token", "hf_canary0123456789")
    (tmp_path / "main.py").write_text(
        "import hashlib, sys\n"
        "from azure.identity import DefaultAzureCredential\n"
        "from azure.keyvault.secrets import SecretClient\n"
        "from azure.storage.blob import BlobServiceClient\n"
        "who = DefaultAzureCredential()\n"
        "secret = SecretClient(sys.argv[1], who).get_secret('hf-token').value\n"
        "container = BlobServiceClient(sys.argv[2], who).get_container_client(sys.argv[3])\n"
        "container.upload_blob('digest', hashlib.sha256(secret.encode()).hexdigest())\n"
    )
    vault = clients.ml.workspaces.get(clients.settings.workspace).key_vault.rpartition("/")[2]
    text = f"python main.py https://{vault}.vault.azure.net {clients.account_url} {clients.container.container_name}"
    name = submit(clients, text, code=str(tmp_path))
    azure.wait_for(name, "Completed")
    assert len(clients.container.download_blob("digest").readall()) == 64
    assert "hf_canary" not in json.dumps(azure.traffic())
    assert {exchange["job"] for exchange in azure.traffic("GET", "vault.azure.net")} == {name}
