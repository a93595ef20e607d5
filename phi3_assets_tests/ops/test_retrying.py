"""What may pass is tried again, a few times and said; a user's error and a user's cancel never are."""

import contextlib
import os
import signal
import threading
import time

import dagster as dg
import pytest

from phi3_assets.ops import retrying
from phi3_assets.ops.planning import to_json
from phi3_assets.ops.retrying import retried
from phi3_assets.ops.running import run_plan
from phi3_assets.resources.local_execution import LocalExecution
from phi3_assets_tests.conftest import raw_dataset_call


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


KILLED_ONCE = """
import json, os, signal, sys
from pathlib import Path
left = Path(json.loads(Path(sys.argv[1]).read_text())["work"]) / "checkpoint"
if not left.exists():
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    os.kill(os.getpid(), signal.SIGKILL)
from phi3_assets.worker.__main__ import main
sys.exit(main(sys.argv[1]))
"""


def test_a_worker_that_was_killed_goes_on_from_what_it_left(monkeypatch, instance, store):
    """The kernel killed a training for a neighbour's sake, and the run was lost; its checkpoint was not."""
    monkeypatch.setattr(retrying, "PAUSES_S", (0.0,))
    monkeypatch.setattr("phi3_assets.resources.local_execution.WORKER", ["-c", KILLED_ONCE])
    call, inputs = raw_dataset_call(store)
    plan = {"call": call.to_dict(), "inputs": {name: to_json(item) for name, item in inputs.items()}}

    @dg.op(out=dg.Out(dict))
    def only(context: dg.OpExecutionContext):
        return dg.Output(run_plan(context, plan, LocalExecution(), store))

    @dg.job(executor_def=dg.in_process_executor)
    def work():
        only()

    result = work.execute_in_process(instance=instance)
    assert result.success
    assert store.find(call.step, call.identity) is not None
    (said,) = [entry.user_message for entry in instance.all_logs(result.run_id) if "may pass" in entry.user_message]
    assert "was killed (SIGKILL), which is what the kernel does when memory runs out" in said
