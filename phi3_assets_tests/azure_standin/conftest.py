"""For the stand-in's own tests."""

import pytest


@pytest.fixture
def clients(azure, monkeypatch):
    """Clients of the stand-in's workspace, in this process, with an environment that jobs can name."""
    from azure.ai.ml.entities import Environment

    from phi3_assets.azure.clients import Clients
    from phi3_assets.azure.settings import load_settings

    azure.apply(monkeypatch)
    clients = Clients(load_settings())
    image, conda = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04", {"dependencies": ["python=3.11"]}
    clients.ml.environments.create_or_update(Environment(name="phi3", version="1", image=image, conda_file=conda))
    return clients
