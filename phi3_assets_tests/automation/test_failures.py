"""A failed run is told to the address in PHI3_WEBHOOK_URL, which is a real server here."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from phi3_assets.automation import failures
from phi3_assets.core.errors import TransientError, UserError


@pytest.fixture
def server(monkeypatch):
    """Answers with each status of `answers` in turn, then 200; keeps what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
            self.end_headers()

        def log_message(self, *_):
            """Not in the tests' output."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.answers = [], []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(failures, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setenv(failures.WEBHOOK, f"http://127.0.0.1:{server.server_port}/hooks/secret-token")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tell(instance):
    """The sensor, as the daemon calls it for a run that failed."""

    @dg.op
    def train():
        raise dg.Failure("The hub was away.")

    @dg.job
    def retrain():
        train()

    tags = {"phi3/product": "desk", "phi3/recipe": "smol-cpu", "phi3/data_version": "ab12"}

    def call():
        done = retrain.execute_in_process(instance=instance, raise_on_error=False, tags=tags)
        context = dg.build_run_status_sensor_context(
            sensor_name="failed_runs",
            dagster_event=done.get_run_failure_event(),
            dagster_instance=instance,
            dagster_run=done.dagster_run,
        ).for_run_failure()
        return failures.failed_runs(context), done.run_id

    return call


def test_somebody_is_told(server, tell):
    """Runs failed for a week of nights, and nobody looked at the page."""
    said, run = tell()
    assert said is None
    ((kind, content),) = server.got
    assert kind == "application/json"
    assert content == {
        "text": f"Run {run[:8]} of desk failed: train: The hub was away.",
        "run": run,
        "job": "retrain",
        "product": "desk",
        "recipe": "smol-cpu",
        "data_version": "ab12",
        "reason": "train: The hub was away.",
    }


def test_an_address_that_is_away_is_tried_again(server, tell):
    server.answers = [503, 502]
    tell()
    assert len(server.got) == 3


@pytest.mark.parametrize(
    ("answers", "tries", "error", "why"),
    [([404], 1, UserError, "answered 404"), ([500, 500, 500], 3, TransientError, "answered 500; tried 3 times")],
)
def test_what_cannot_be_told_fails_the_tick(server, tell, answers, tries, error, why):
    """The reason stands in the tick; the address does not, for whoever knows it may write to the channel."""
    server.answers = answers
    with pytest.raises(error, match=why) as raised:
        tell()
    assert len(server.got) == tries
    assert "secret-token" not in str(raised.value)


def test_without_an_address_nothing_is_posted(server, tell, monkeypatch):
    monkeypatch.delenv(failures.WEBHOOK)
    said, _ = tell()
    assert "is not set" in said.skip_message
    assert server.got == []


def test_what_is_no_address_is_refused(tell, monkeypatch):
    monkeypatch.setenv(failures.WEBHOOK, "file:///etc/passwd")
    with pytest.raises(UserError, match="must begin with https://"):
        tell()
