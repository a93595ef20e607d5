"""Whole runs whose steps are jobs of an AzureML workspace: `phi3 run` as a user calls it, on Azurite and the stand-in.

Which jobs there were, what was in them and what became of them is asked of the workspace and not of us.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg
import pytest

from phi3_assets.azure.clients import clients_of
from phi3_assets.core.home import initialise
from phi3_assets.core.ledger import run_key
from phi3_assets.resources.blob_store import BlobArtifactStore
from phi3_assets.resources.local_store import LocalArtifactStore
from phi3_assets.resources.pointers import latest
from phi3_assets.steps import STEPS
from phi3_assets_tests.azure_standin.judge import exchange_problems
from phi3_assets_tests.azure_standin.submitting import log_of
from phi3_assets_tests.conftest import CANARY_QUESTION, CANARY_SECRET, clean_env, lay_out, write_rows
from phi3_assets_tests.tiny_graph import ENDLESS, PHI3, TINY, phi3

pytestmark = pytest.mark.azure

PRODUCT = "operations-desk"
# What measures time cannot be the same twice, nor what is made of it.
TIMED = {"eval_report": {"items.jsonl", "speed.json", "report.html"}}


def environment(azure, **more: str) -> dict[str, str]:
    """A terminal from which everything runs on the cluster."""
    return clean_env(**{**azure.env, "PHI3_EXECUTION": "azureml", "PHI3_AZURE_POLL_S": "0.4", **more})


def training_there(azure, **more: str) -> dict[str, str]:
    """A terminal from which only the training runs on the cluster."""
    return environment(azure, PHI3_EXECUTION="local", PHI3_EXECUTION_LORA_ADAPTER="azureml", **more)


def start(home: Path, env: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    command = [*PHI3, "run", *TINY, *arguments, "--home", str(home)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_until(run: subprocess.Popen[str], words: str) -> str:
    assert run.stdout is not None
    said = ""
    while words not in said:
        line = run.stdout.readline()
        assert line, said
        said += line
    return said


def job_of(azure, step: str, timeout_s: float = 90) -> str:
    """Name of the job of a step, once there is one."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for job in azure.jobs():
            if job["name"].startswith(step.replace("_", "-")):
                return job["name"]
        time.sleep(0.2)
    raise AssertionError(f"no job for {step}: {azure.jobs()}")


def statuses(home: Path) -> list[dg.DagsterRunStatus]:
    with dg.DagsterInstance.from_config(str(home / ".dagster")) as instance:
        return [run.status for run in instance.get_runs()]


def test_the_whole_graph_is_made_on_the_cluster_and_is_the_same_as_here(azure, made_home, tmp_path, monkeypatch):
    azure.secret("hf-token", CANARY_SECRET)
    home = lay_out(tmp_path / "home")
    env = environment(azure, PHI3_AZURE_HF_TOKEN_SECRET="hf-token")
    done = phi3("run", *TINY, home=home, env=env)
    assert done.returncode == 0, done.stdout

    azure.apply(monkeypatch)
    there, here = BlobArtifactStore(home=str(home)), LocalArtifactStore(home=str(made_home))
    assert [job["status"] for job in azure.jobs()] == ["Completed"] * len(STEPS)
    for step in STEPS:
        one, other = (_manifest(store, step) for store in (there, here))
        assert one.ran["execution"] == "azureml"
        assert one.ran["job"].startswith(step.replace("_", "-"))
        if step in TIMED:
            assert {path for path in one.files if one.files[path] != other.files[path]} <= TIMED[step]
        elif step != "release_bundle":
            assert one.digest == other.digest, step
        there.verify(one.ref)

    # Nothing that was sent or said is what Microsoft's schemas would not have.
    traffic = azure.traffic()
    assert [problem for exchange in traffic for problem in exchange_problems(exchange)] == []
    assert sum(exchange["host"] == "management.azure.com" for exchange in traffic) > 100

    # What a job reads it cannot change, and who looks for it finds it.
    for job in azure.jobs():
        given = job["properties"]
        assert {one["mode"] for one in given["inputs"].values()} == {"ReadOnlyMount"}
        assert given["tags"].keys() >= {"phi3/step", "phi3/identity", "dagster/run_id", "dagster/job"}

    # Storage was reached with tokens alone, by us and by jobs: an account may forbid shared keys.
    assert {exchange["authorization"] for exchange in traffic if "blob" in exchange["host"]} == {"Bearer"}
    assert azure.traffic("POST", path="/listSecrets") == []

    # Code and environment went there once, and not once for each job.
    assert len(azure.traffic("PUT", host="management", path="/environments/")) == 1
    assert len(azure.traffic("PUT", host="blob", path=".whl")) == 1

    # The hub's token was read inside one job, and is nowhere else.
    reads = azure.traffic("GET", host="vault.azure.net", path="/secrets/hf-token")
    assert [exchange["status"] for exchange in reads] == [401, 200]
    said = [exchange for exchange in traffic if "vault" not in exchange["host"]]
    assert CANARY_SECRET not in json.dumps(said)
    assert CANARY_SECRET not in done.stdout
    for blob in there.container.list_blobs():
        assert CANARY_SECRET.encode() not in there.container.download_blob(blob.name).readall(), blob.name
    for file in home.rglob("*"):
        assert not file.is_file() or CANARY_SECRET.encode() not in file.read_bytes(), file
    assert CANARY_QUESTION not in json.dumps(azure.traffic(host="management.azure.com"))

    # From another machine, or after the home was lost: everything is found, nothing is submitted.
    other_home = lay_out(tmp_path / "other")
    again = phi3("run", *TINY, home=other_home, env=env)
    assert again.returncode == 0, again.stdout
    assert len(azure.jobs()) == len(STEPS)
    assert there.ledger.keys(run_key(""))


def _manifest(store, step):
    ref = latest(store.ledger, PRODUCT, step)
    assert ref is not None
    manifest = store.find(ref.kind, ref.identity)
    assert manifest is not None
    return manifest


def test_an_adapter_is_trained_on_kubernetes_behind_arc(azure, made_home, tmp_path, monkeypatch):
    home = lay_out(tmp_path / "home")
    there = {"PHI3_EXECUTION": "local", "PHI3_EXECUTION_LORA_ADAPTER": "azure_arc", "PHI3_AZURE_COMPUTE": "arc-cluster"}
    env = environment(azure, **there)
    refused = phi3("run", *TINY, "--to", "lora_adapter", home=home, env=env)
    assert refused.returncode == 1
    assert "PHI3_AZURE_INSTANCE_TYPE is not set" in refused.stdout
    assert azure.jobs() == []
    done = phi3("run", *TINY, "--to", "lora_adapter", home=home, env={**env, "PHI3_AZURE_INSTANCE_TYPE": "gpu-a100"})
    assert done.returncode == 0, done.stdout
    azure.apply(monkeypatch)
    made = _manifest(BlobArtifactStore(home=str(home)), "lora_adapter")
    assert made.ran["execution"] == "azure_arc"
    assert made.digest == _manifest(LocalArtifactStore(home=str(made_home)), "lora_adapter").digest
    (body,) = [job["properties"]["resources"] for job in azure.jobs()]
    assert body["instanceType"] == "gpu-a100"


def test_terminate_in_the_midst_of_training_ends_the_job(azure, tmp_path, monkeypatch):
    home = lay_out(tmp_path / "home")
    run = start(home, training_there(azure), *ENDLESS, "--to", "lora_adapter")
    read_until(run, "lora_adapter   0 %")
    name = job_of(azure, "lora_adapter")
    assert azure.job(name)["status"] == "Running"
    run.send_signal(signal.SIGTERM)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 130, output
    assert azure.job(name)["status"] == "Canceled"
    azure.wait_closed(name)
    assert statuses(home) == [dg.DagsterRunStatus.CANCELED]
    azure.apply(monkeypatch)
    store = BlobArtifactStore(home=str(home))
    assert latest(store.ledger, PRODUCT, "lora_adapter") is None
    assert list(store.container.list_blob_names(name_starts_with="phi3-assets/artefacts/lora_adapter")) == []
    assert list(store.container.list_blob_names(name_starts_with="phi3-assets/jobs/")) == []


@pytest.mark.timeout(600)
def test_a_killed_run_leaves_its_job_to_another_machine_and_a_training_is_taken_its_nodes_twice(
    azure, copied_home, tmp_path, monkeypatch
):
    """Two stories: while the killed machine's claim runs out, which takes a minute, the other one happens."""
    other, name = killed_while_its_job_waits(azure, tmp_path)
    taken_its_nodes_twice(azure, copied_home, tmp_path, monkeypatch)
    said = read_until(other, "is making it already")
    azure.hold("cpu-cluster", held=False)
    rest, _ = other.communicate(timeout=120)
    assert other.returncode == 0, said + rest
    assert jobs_on(azure, "cpu-cluster") == [name]
    store = BlobArtifactStore(home=str(tmp_path / "third"))
    # Its run was planned first, so the pointer stays with the other story's adapter.
    folders = store.container.list_blob_names(name_starts_with="phi3-assets/artefacts/lora_adapter/")
    (identity,) = {folder.split("/")[3] for folder in folders} - {_manifest(store, "lora_adapter").call.identity}
    made = store.find("lora_adapter", identity)
    assert made is not None
    assert made.ran["job"] == name
    store.verify(made.ref)


def jobs_on(azure, compute: str) -> list[str]:
    return [job["name"] for job in azure.jobs() if job["compute"] == compute]


def killed_while_its_job_waits(azure, tmp_path: Path) -> tuple[subprocess.Popen[str], str]:
    """Two machines want one adapter; the one that makes it is killed. The other's run, and the job."""
    azure.hold("cpu-cluster")  # the job waits for a node, so that it is still to be adopted
    one = start(lay_out(tmp_path / "one"), training_there(azure), "--to", "lora_adapter")
    name = job_of(azure, "lora_adapter")
    other = start(lay_out(tmp_path / "other"), training_there(azure), "--to", "lora_adapter")
    read_until(other, "is in the hands of")
    os.kill(one.pid, signal.SIGKILL)
    one.communicate()
    return other, name


# Some twenty seconds: a node is told within three that it will be gone, twice.
LONG = ["--set", "num_train_epochs=400", "--to", "lora_adapter"]


def taken_its_nodes_twice(azure, copied_home: Path, tmp_path: Path, monkeypatch) -> None:
    """It goes on, bit by bit as the same training here that is left alone, and all that it says arrives."""
    uninterrupted = phi3("run", *TINY, *LONG, home=copied_home, env=clean_env())
    assert uninterrupted.returncode == 0, uninterrupted.stdout
    home = lay_out(tmp_path / "home")
    run = start(home, training_there(azure, PHI3_AZURE_COMPUTE="spot-cluster"), *LONG)
    said = ""
    for words in ("Training on", "Resuming from"):
        said += read_until(run, words) + read_until(run, "loss")
        (name,) = jobs_on(azure, "spot-cluster")
        azure.preempt(name, notice_s=8)
    rest, _ = run.communicate(timeout=240)
    said += rest
    assert run.returncode == 0, said
    (name,) = jobs_on(azure, "spot-cluster")
    job = azure.job(name)
    assert (job["attempt"], job["history"].count("Queued")) == (3, 2)
    assert said.count("This machine is to be taken away") == 2
    assert said.count("Took the checkpoint of step") == 2
    assert said.count("Resuming from the checkpoint of step") == 2
    azure.apply(monkeypatch)
    store = BlobArtifactStore(home=str(home))
    made = _manifest(store, "lora_adapter")
    assert made.metrics["resumed_from_step"] > 0
    assert made.digest == _manifest(LocalArtifactStore(home=str(copied_home)), "lora_adapter").digest
    kept = f"phi3-assets/checkpoints/lora_adapter/{made.call.identity}"
    assert list(store.container.list_blob_names(name_starts_with=kept)) == []


def test_two_nodes_with_two_processes_train_the_same_adapter(azure, copied_home, tmp_path, monkeypatch):
    import torch
    from safetensors.torch import load_file

    plain = ["--set", "lora_dropout=0", "--to", "lora_adapter"]  # each process draws its own, so without it
    alone = phi3("run", *TINY, *plain, home=copied_home, env=clean_env())
    assert alone.returncode == 0, alone.stdout
    home = lay_out(tmp_path / "home")
    env = training_there(azure, PHI3_AZURE_INSTANCE_COUNT="2", PHI3_AZURE_PROCESSES_PER_NODE="2")
    done = phi3("run", *TINY, *plain, home=home, env=env)
    assert done.returncode == 0, done.stdout
    assert "rank 0 of 4" in done.stdout
    assert "rank 1 of 4" not in done.stdout  # the first one speaks for all
    azure.apply(monkeypatch)
    there, here = BlobArtifactStore(home=str(home)), LocalArtifactStore(home=str(copied_home))
    one, other = _manifest(there, "lora_adapter"), _manifest(here, "lora_adapter")
    assert one.call.identity == other.call.identity
    weights = load_file(there.fetch(one.ref) / "adapter_model.safetensors")
    for name, tensor in load_file(here.fetch(other.ref) / "adapter_model.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)
    (job,) = azure.jobs()
    assert job["properties"]["resources"]["instanceCount"] == 2
    for rank in range(4):
        log = log_of(clients_of(there.settings), job["name"], f"std_log_process_{rank}.txt")
        assert f"rank {rank} of 4" in log


def test_data_of_the_workspace_is_read_where_it_is(azure, tmp_path, monkeypatch):
    """Neither a second copy in the store, nor a job that reads anything but the original."""
    azure.apply(monkeypatch)
    home = tmp_path / "home"
    initialise(home)
    write_rows(tmp_path / "codes.csv")
    store = BlobArtifactStore(home=str(home))
    store.container.upload_blob("desk/codes.csv", (tmp_path / "codes.csv").read_bytes())
    there = "azureml://datastores/workspaceblobstore/paths/desk"
    done = phi3(
        "run", *TINY, "--set", f"dataset_path={there}", "--to", "raw_dataset", home=home, env=environment(azure)
    )
    assert done.returncode == 0, done.stdout
    (job,) = [job for job in azure.jobs() if job["name"].startswith("raw-dataset")]
    assert job["properties"]["inputs"]["in_datasets"]["uri"].startswith(there)
    kept = store.container.list_blob_names(name_starts_with="phi3-assets/files/")
    assert not [name for name in kept if name.endswith(".csv")]
    assert _manifest(store, "raw_dataset").metrics["rows_read"] == 40
