"""What a worker says elsewhere arrives whole, in order and once, whatever happens to the job and the network."""

import threading

import pytest

from phi3_assets.azure.clients import Clients
from phi3_assets.azure.settings import load_settings
from phi3_assets.resources.blob_messages import BlobMessageReader
from phi3_assets.worker import blob_messages
from phi3_assets.worker.blob_messages import PREFIX_KEY, BlobMessageChannel, BlobMessageWriter, chunk_name

pytestmark = pytest.mark.azure
PREFIX = "phi3-assets/jobs/one/messages"


@pytest.fixture
def container(azure, monkeypatch):
    azure.apply(monkeypatch)
    monkeypatch.setattr(blob_messages, "EVERY_S", 0.05)
    return Clients(load_settings()).container


class Heard:
    """Takes what arrives, in the place of `Messages`, and of Dagster's handler for what goes wrong."""

    def __init__(self):
        self.lines = []
        self.broken = []

    def dispatch(self, message, handler):
        self.lines.append(message["params"]["payload"])

    def report_pipes_framework_exception(self, origin, info):
        self.broken.append(info[1])


def say(channel, *words):
    for word in words:
        channel.write_message({"method": "report_custom_message", "params": {"payload": word}})


def listen(container, until):
    """Read from the first message on, while `until` runs."""
    heard = Heard()
    reader = BlobMessageReader(container, PREFIX, heard, 0.05)
    with reader.read_messages(heard) as params:
        assert params == {PREFIX_KEY: PREFIX}
        until()
    assert heard.broken == []
    return heard.lines


def write(container, *words):
    with BlobMessageWriter(container).open({PREFIX_KEY: PREFIX}) as channel:
        say(channel, *words)


def test_all_arrives_in_order(container):
    assert listen(container, lambda: write(container, *range(100))) == list(range(100))


def test_a_reader_that_comes_later_hears_all_from_the_first_on(container):
    """The Dagster process was killed, and the next one goes on with the job."""
    write(container, "before")
    assert listen(container, lambda: write(container, "after")) == ["before", "after"]


def test_an_attempt_that_begins_anew_goes_on_where_the_killed_one_ended(container):
    """dagster-pipes' own writer begins at 1 again, finds it taken, and everything after a preemption is lost."""

    def preempted():
        killed = BlobMessageChannel(container, PREFIX)
        say(killed, "first")
        while not list(container.list_blob_names(name_starts_with=PREFIX)):
            pass
        killed._ended.set()  # it is gone: neither closed nor heard of again
        write(container, "second")
        write(container, "third")

    assert listen(container, preempted) == ["first", "second", "third"]


@pytest.mark.parametrize("kind", ["lost", "reset", "html"])
def test_what_the_network_does_to_an_upload_loses_and_doubles_nothing(azure, container, kind):
    azure.fault(method="PUT", host="blob", path="messages", kind=kind)
    assert listen(container, lambda: write(container, "one", "two")) == ["one", "two"]
    assert azure.faults()[0]["used"] == 1


def test_a_busy_account_at_the_end_loses_no_finished_work(azure, container):
    """azure-storage-blob does not try 429 again, and a job whose last words do not arrive has failed."""
    with BlobMessageWriter(container).open({PREFIX_KEY: PREFIX}) as channel:
        azure.fault(method="PUT", host="blob", path="messages", status=429, times=2)
        channel._ended.set()  # so that the last upload is the only one
        say(channel, "done")
    assert azure.faults()[0]["used"] == 2
    assert listen(container, lambda: None) == ["done"]


def test_a_read_that_fails_is_tried_again(azure, container):
    azure.fault(method="GET", host="blob", path="messages", kind="answer", status=503)
    assert listen(container, lambda: write(container, "one")) == ["one"]


def test_messages_that_cannot_be_sent_are_an_error_at_the_end_and_not_silence(azure, container, monkeypatch):
    azure.fault(method="PUT", host="blob", path="messages", kind="forbidden", times=-1)
    with pytest.raises(Exception, match="does not have authorization|AuthorizationFailed|not authorized"):
        write(container, "one")


def test_chunks_are_named_so_that_they_sort(container):
    write(container, "one")
    assert list(container.list_blob_names(name_starts_with=PREFIX)) == [chunk_name(PREFIX, 1)]
    assert threading.active_count() < 50
