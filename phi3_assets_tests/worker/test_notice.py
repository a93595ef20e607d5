"""What the metadata service announces is heeded, withdrawn, outlived, or somebody else's; without one nothing fails."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from phi3_assets.worker import notice
from phi3_assets.worker.notice import Notice, _seconds_until
from phi3_assets_tests.worker.metadata_service import MetadataService


@pytest.fixture
def service() -> Iterator[MetadataService]:
    service = MetadataService()
    yield service
    service.close()


@contextmanager
def noticing(service: MetadataService, monkeypatch, grace_s: float = 60.0) -> Iterator[tuple[Notice, list[str]]]:
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
        monkeypatch.delenv(name.lower(), raising=False)
    log: list[str] = []
    with Notice(lambda: None, log.append, poll_s=0.02, grace_s=grace_s) as asked:
        wait_until(lambda: service.asked)
        yield asked, log


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_announced_and_withdrawn(service, monkeypatch) -> None:
    with noticing(service, monkeypatch) as (asked, log):
        assert not asked.announced()
        service.announce(not_before=format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
        wait_until(asked.announced)
        service.withdraw()
        wait_until(lambda: not asked.announced())
    assert len(log) == 2
    assert log[0].startswith(("This machine is to be taken away in 30 s", "This machine is to be taken away in 29 s"))
    assert log[1] == "The preemption was withdrawn: this machine is spared"


def test_nothing_came_of_it(service, monkeypatch) -> None:
    """The event stays listed; this one is outlived, and the next is heeded."""
    with noticing(service, monkeypatch, grace_s=0.3) as (asked, log):
        service.announce()
        wait_until(asked.announced)
        wait_until(lambda: not asked.announced())
        time.sleep(0.2)
        assert not asked.announced()
        service.announce(number="B456")
        wait_until(asked.announced)
    assert len(log) == 2


def test_it_stands_while_the_service_does_not_answer(service, monkeypatch) -> None:
    with noticing(service, monkeypatch) as (asked, _):
        service.announce()
        wait_until(asked.announced)
        service.answer_events = False
        seen = len(service.asked)
        wait_until(lambda: len(service.asked) > seen + 3)
        assert asked.announced()


@pytest.mark.parametrize(
    ("name", "event", "ours"),
    [
        (None, {}, True),
        (None, {"kind": "Reboot"}, False),
        (None, {"kind": "Freeze"}, False),
        ("vmss_3", {}, True),
        ("vmss_4", {}, False),  # another of the same scale set
        ("vmss_4", {"Resources": []}, True),
        ('{"Events": []}', {}, True),  # whatever answers every path with the same page does not know the name
    ],
)
def test_only_what_is_about_this_machine(name, event, ours, monkeypatch) -> None:
    service = MetadataService(name)
    service.announce(**event)
    with noticing(service, monkeypatch) as (asked, _):
        wait_until(lambda: sum("scheduledevents" in path for path in service.asked) > 2)
        assert asked.announced() == ours
    service.close()


def test_no_service_is_asked_rarely_and_nothing_is_said(service, monkeypatch) -> None:
    service.answer_events = False
    with noticing(service, monkeypatch) as (asked, log):
        time.sleep(0.5)
        assert not asked.announced()
    assert sum("scheduledevents" in path for path in service.asked) <= 1
    assert log == []
    assert notice.ABSENT_S >= 60


def test_a_closed_door_is_no_service(service, monkeypatch) -> None:
    service.close()
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)
    with Notice(lambda: None, print, poll_s=0.02) as asked:
        time.sleep(0.2)
        assert not asked.announced()
        assert asked._thread.is_alive()


@pytest.mark.parametrize(
    ("not_before", "seconds"),
    [
        ("", 0),
        (None, 0),
        ("soon", 0),
        ("Mon, 19 Sep 2016 18:29:47 GMT", 0),
        ("Mon, 19 Sep 2216 18:29:47 GMT", notice.MAX_AHEAD_S),
    ],
)
def test_time_ahead(not_before, seconds) -> None:
    assert _seconds_until(not_before) == seconds
