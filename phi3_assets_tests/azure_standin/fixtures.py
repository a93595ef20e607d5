"""Fixtures of the test bed; conftest.py imports them. Nothing heavy is imported before a test asks for one."""

import pytest


@pytest.fixture(scope="session")
def azure_session(tmp_path_factory):
    """One stand-in for the whole session; fails it where something reached for another host, or ours was wrong."""
    from phi3_assets_tests.azure_standin.bed import Bed

    bed = Bed(tmp_path_factory.mktemp("standin"))
    yield bed
    problems = bed.problems()
    bed.close()
    assert problems == {"leaks": [], "own_faults": []}


@pytest.fixture
def azure(azure_session):
    """The stand-in with an empty workspace, no faults and no traffic; see `bed.Bed`."""
    azure_session.reset()
    before = azure_session.problems()
    yield azure_session
    assert azure_session.problems() == before


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
