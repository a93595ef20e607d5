"""The sensor on a container, against Azurite."""

import pytest

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets_tests.automation.desk import Desk

pytestmark = pytest.mark.azure

ADDRESS = "azureml://datastores/workspaceblobstore/paths/desk"
CSV = b"Question,Best Answer\nwhat?,this\n"


def test_a_container_is_listed_and_never_fetched(azure, home, monkeypatch):
    """A tick that fetched gigabytes timed out, and so did each one after it."""
    azure.apply(monkeypatch)
    container = Clients(load_settings()).container
    container.upload_blob("desk/a.csv", CSV)
    desk = Desk(home, monkeypatch, dataset_path=ADDRESS)
    azure.clear()
    assert [desk.tick() for _ in range(4)] == [0, 1, 0, 0]
    container.upload_blob("desk/sub/b.csv", CSV)
    assert [desk.tick() for _ in range(4)] == [0, 1, 0, 0]
    assert "new: sub/b.csv" in desk.asked[-1]["phi3/why"]
    container.upload_blob("desk/a.csv", CSV.replace(b"this", b"that"), overwrite=True)
    assert [desk.tick() for _ in range(4)] == [0, 1, 0, 0]
    desk.restart()
    desk.forget("cursor", "memory")
    assert desk.ticks() == 0
    container.delete_blob("desk/sub/b.csv")
    assert [desk.tick() for _ in range(4)] == [1, 0, 0, 0]  # there is nothing that would have to come to rest
    assert "gone: sub/b.csv" in desk.asked[-1]["phi3/why"]
    assert azure.traffic("GET", "blob", ".csv") == []
    desk.instance.dispose()
