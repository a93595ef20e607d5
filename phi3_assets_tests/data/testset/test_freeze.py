"""A test set is frozen once, grows only on request, and two runs cannot freeze two."""

import pytest

from phi3_assets.core.errors import UserError
from phi3_assets.core.manifest import digest_of
from phi3_assets.data.testset.freeze import freeze, proposer, versions


@pytest.fixture
def artefact(tmp_path):
    path = tmp_path / "artefact"
    path.mkdir()
    (path / "test_set.parquet").write_bytes(b"one")
    return path


def test_first_use_freezes_and_the_second_does_not(tmp_path, artefact):
    folder = tmp_path / "sets"
    assert versions(folder) == {}
    name = freeze(folder, artefact, "a" * 64, made_with=None)
    assert name == f"0001-{'a' * 16}.parquet"
    assert proposer(name) == "a" * 16
    assert (folder / name).read_bytes() == b"one"
    assert freeze(folder, artefact, "b" * 64, made_with=digest_of(versions(folder))) is None
    assert list(versions(folder)) == [name]


def test_growing_adds_a_version_and_keeps_the_old(tmp_path, artefact):
    folder = tmp_path / "sets"
    freeze(folder, artefact, "a" * 64, made_with=None)
    (artefact / "test_set.parquet").write_bytes(b"one and two")
    freeze(folder, artefact, "b" * 64, made_with=digest_of(versions(folder)))
    assert [(folder / name).read_bytes() for name in sorted(versions(folder))] == [b"one", b"one and two"]


def test_a_run_that_knew_no_test_set_cannot_replace_one(tmp_path, artefact):
    folder = tmp_path / "sets"
    freeze(folder, artefact, "a" * 64, made_with=None)
    (artefact / "test_set.parquet").write_bytes(b"other rows")
    with pytest.raises(UserError, match="Another run froze a test set.*Run it again"):
        freeze(folder, artefact, "b" * 64, made_with=None)
    assert len(versions(folder)) == 1
