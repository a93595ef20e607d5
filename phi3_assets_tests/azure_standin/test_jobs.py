"""Jobs of unmodified clients, as real processes."""

import pytest
from azure.ai.ml import Input, Output, command
from azure.ai.ml.entities import Environment

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings

pytestmark = pytest.mark.azure
ENVIRONMENT = "azureml:phi3:1"


@pytest.fixture
def clients(azure, monkeypatch):
    azure.apply(monkeypatch)
    clients = Clients(load_settings())
    environment = Environment(
        name="phi3", version="1", image="mcr.microsoft.com/azureml/openmpi", conda_file={"dependencies": ["python"]}
    )
    clients.ml.environments.create_or_update(environment)
    return clients


def submit(clients, text, **more):
    job = command(**{"command": text, "environment": ENVIRONMENT, "compute": "cpu-cluster", **more})
    return clients.ml.jobs.create_or_update(job).name


def log_of(clients, name, file="std_log.txt"):
    store = clients.ml.datastores.get("workspaceartifactstore")
    from phi3_assets.azure.clients import container_client

    container = container_client(clients.account_url, store.container_name, clients.credential)
    return container.download_blob(f"ExperimentRun/dcid.{name}/user_logs/{file}").readall().decode()


def test_a_job_with_code_input_and_output(azure, clients, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "main.py").write_text("print(open('note.txt').read())")
    (tmp_path / "code" / "note.txt").write_text("from the code")
    clients.container.upload_blob("in/deep/a.txt", b"from the input")
    base = "azureml://datastores/workspaceblobstore/paths"
    name = submit(
        clients,
        "python main.py && cat ${{inputs.data}}/deep/a.txt && echo ${{inputs.epochs}} > ${{outputs.model}}/m.txt",
        code=str(tmp_path / "code"),
        inputs={"data": Input(type="uri_folder", path=f"{base}/in/"), "epochs": 3},
        outputs={"model": Output(type="uri_folder", path=f"{base}/out/", mode="upload")},
    )
    job = azure.wait_for(name, "Completed")
    assert job["history"] == ["Starting", "Preparing", "Running", "Finalizing", "Completed"]
    assert clients.container.download_blob("out/m.txt").readall() == b"3\n"
    assert log_of(clients, name) == "from the code\nfrom the input"
    assert clients.ml.jobs.get(name).status == "Completed"
