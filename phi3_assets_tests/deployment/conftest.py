import pytest

from phi3_assets_tests.deployment.postgres import HOW, Postgres, programs


@pytest.fixture
def postgres():
    """A PostgreSQL that holds nothing."""
    if programs() is None:
        pytest.skip(HOW)
    server = Postgres()
    yield server
    server.remove()
