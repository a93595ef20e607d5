"""What may pass is tried again, a few times and said; a user's error and a user's cancel never are."""

import contextlib
import os
import signal
import threading
import time

import dagster as dg
import pytest

from phi3_assets.ops import retrying
from phi3_assets.ops.retrying import retried


def tries(monkeypatch, instance, failing, pauses=(0.0, 0.0, 0.0)):
    """Run an op that does `failing(number of the try)`; how often it was tried, and the run."""
    monkeypatch.setattr(retrying, "PAUSES_S", pauses)
    numbers = []

    @dg.op
    def only(context: dg.OpExecutionContext) -> None:
        with retried(context):
            numbers.append(context.retry_number)
            failing(context.retry_number)

    @dg.job(executor_def=dg.in_process_executor)
    def work():
        only()

    return numbers, work.execute_in_process(instance=instance, raise_on_error=False)


def failure(allow_retries=True):
    return dg.Failure("step: the hub was away", metadata={"transient": allow_retries}, allow_retries=allow_retries)


def test_what_passes_is_made(monkeypatch, instance):
    def failing(number):
        if number < 2:
            raise failure()

    numbers, result = tries(monkeypatch, instance, failing)
    assert result.success
    assert numbers == [0, 1, 2]
    said = [entry.user_message for entry in instance.all_logs(result.run_id) if entry.dagster_event is None]
    assert said[0] == "step: the hub was away\nThis may pass: tried again in 0 s, time 1 of 3."
    assert said[1].endswith("time 2 of 3.")


def test_the_number_of_tries_is_bounded(monkeypatch, instance):
    def failing(number):
        raise failure()

    numbers, result = tries(monkeypatch, instance, failing)
    assert numbers == [0, 1, 2, 3]
    data = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert data.user_failure_data.description == "step: the hub was away"


def test_what_only_the_user_can_change_is_not_tried_again(monkeypatch, instance):
    def failing(number):
        raise failure(allow_retries=False)

    assert tries(monkeypatch, instance, failing)[0] == [0]


def test_a_defect_is_not_tried_again(monkeypatch, instance):
    def failing(number):
        raise KeyError("a defect")

    assert tries(monkeypatch, instance, failing)[0] == [0]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_is_not_tried_again(monkeypatch, instance, number):
    """An op with Dagster's RetryPolicy starts anew when the user cancels it."""

    def failing(_):
        os.kill(os.getpid(), number)
        time.sleep(10)

    with contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        tries(monkeypatch, instance, failing)
    (run,) = instance.get_runs()
    kinds = [entry.dagster_event.event_type_value for entry in instance.all_logs(run.run_id) if entry.dagster_event]
    assert "STEP_UP_FOR_RETRY" not in kinds
    assert kinds.count("STEP_START") == 1
    assert "STEP_FAILURE" in kinds


def test_a_signal_ends_the_pause(monkeypatch, instance):
    """Between two tries Dagster sleeps deaf to signals: Terminate would have taken minutes."""

    def failing(_):
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        raise failure()

    began = time.monotonic()
    with contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        tries(monkeypatch, instance, failing, pauses=(60.0,))
    assert time.monotonic() - began < 5
