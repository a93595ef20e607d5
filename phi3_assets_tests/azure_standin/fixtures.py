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
