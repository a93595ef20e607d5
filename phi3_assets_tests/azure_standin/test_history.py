"""What azure-ai-ml itself does with runs that are over, and that run."""

import pytest
import requests
from azure.ai.ml import Output
from azure.ai.ml.exceptions import JobException

from phi3_assets_tests.azure_standin.submitting import ROOT, submit

pytestmark = pytest.mark.azure


def test_the_clients_stream_follows_a_job_to_its_failure_and_logs_have_an_address(azure, clients, monkeypatch):
    """The log itself is not streamed: azure-sdk-for-python#48941, where a default output makes 1.35 sign wrongly."""
    monkeypatch.setenv("AZUREML_RUN_POLLING_INTERVAL_MIN", "1")
    name = submit(clients, "echo hello; sleep 1; exit 2")
    with pytest.raises(JobException, match="status code 2"):
        clients.ml.jobs.stream(name)
    address = clients.ml.jobs._runs_operations.get_run_details(name).log_files["user_logs/std_log.txt"]
    assert requests.get(address, timeout=20).text == "hello\n"


def test_named_outputs_are_resolved_as_the_service_does(azure, clients):
    outputs = {"model": Output(type="uri_folder", path=f"{ROOT}/out/", mode="upload")}
    name = submit(clients, "echo 1 > ${{outputs.model}}/m", outputs=outputs)
    azure.wait_for(name, "Completed")
    runs = clients.ml.jobs._runs_operations
    found = runs.get_run_data(name).run_metadata.outputs
    assert {output: found[output].type for output in found} == {"default": "UriFolder", "model": "UriFolder"}


def test_quota_and_workspace(azure, clients):
    workspace = clients.ml.workspaces.get(clients.settings.workspace)
    assert workspace.key_vault.endswith("/vaults/phi3standin")
    assert [usage.limit for usage in clients.ml.compute.list_usage(location="eastus")] == [24, 100]
    assert {compute.type for compute in clients.ml.compute.list()} == {"amlcompute", "kubernetes"}
    assert clients.ml.compute.get("spot-cluster").tier == "low_priority"
    assert clients.ml.compute.get("cpu-cluster").min_instances == 0
    types = clients.ml.compute.get("arc-cluster").properties["instanceTypes"]
    assert types["gpu-a100"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
