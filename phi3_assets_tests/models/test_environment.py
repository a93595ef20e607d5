"""What steps find set: as many threads as the process may use, not as the host has."""

import pytest

from phi3_assets.models import environment


def test_threads_are_those_that_a_container_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(environment, "cores", lambda: 3)
    assert environment.settings()["OMP_NUM_THREADS"] == "3"


def test_threads_that_the_user_set_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environment.settings()["OMP_NUM_THREADS"] == "1"
