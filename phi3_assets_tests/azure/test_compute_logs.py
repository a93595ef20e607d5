"""What ops print goes to the storage account with the part of dagster.yaml that docs/azureml.md shows."""

import dagster as dg
import pytest
import yaml

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets_tests.azure.test_docs import blocks

pytestmark = pytest.mark.azure


def test_what_an_op_prints_is_found_in_the_account(azure, monkeypatch):
    azure.apply(monkeypatch)
    container = Clients(load_settings()).container
    monkeypatch.setenv("STORAGE_ACCOUNT", container.account_name)
    monkeypatch.setenv("CONTAINER", container.container_name)
    (example,) = [yaml.safe_load(block) for block in blocks("yaml") if block.startswith("compute_logs")]

    @dg.op
    def speaks() -> None:
        print("said by an op", flush=True)

    @dg.job
    def job() -> None:
        speaks()

    with dg.instance_for_test(overrides=example) as instance:
        assert job.execute_in_process(instance=instance).success
    names = container.list_blob_names(name_starts_with="phi3-assets/compute-logs/")
    said = [container.download_blob(name).readall() for name in names if name.endswith(".out")]
    assert [b"said by an op" in text for text in said] == [True]
