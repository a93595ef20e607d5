"""Interrupts, as they come to the process that executes a run whose step is a job."""

import os
import signal
import threading
import time

import pytest

from phi3_assets_tests.resources.azureml.one_job import REFUSED, first_job, run

pytestmark = pytest.mark.azure


def interrupted(execution, store, *moments):
    """Run it, and interrupt it at the end of each of the moments, one after the other."""

    def interrupt():
        for moment in moments:
            moment()
            os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    _, result = run(execution, store)
    thread.join()
    (data,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert data.error.cls_name == "DagsterExecutionInterruptedError", data.error.to_string()


def struck(azure, number=0):
    """Wait until a fault that was ordered strikes."""
    while not azure.faults()[number]["used"]:
        time.sleep(0.05)
    time.sleep(0.3)


def test_an_interrupt_while_the_job_is_submitted_leaves_none(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="PUT", host="management", path="/jobs/", kind="stall", seconds=2)
    interrupted(execution, store, lambda: struck(azure))
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]


def test_a_second_interrupt_does_not_keep_the_first_from_cancelling(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="POST", path="/cancel", status=503, times=2)

    def queued():
        first_job(azure)
        time.sleep(0.5)

    interrupted(execution, store, queued, lambda: struck(azure))
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]


def test_an_interrupt_stays_one_though_nothing_can_be_removed_or_cancelled(azure, execution, store):
    azure.hold("cpu-cluster")
    azure.fault(method="DELETE", host="blob", **REFUSED)

    def queued():
        first_job(azure)
        time.sleep(0.5)

    interrupted(execution, store, queued)
    assert [job["status"] for job in azure.jobs()] == ["Canceled"]
