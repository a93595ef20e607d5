"""What a worker tells of a failure, and which failures may pass by themselves."""

import io
import sys
from pathlib import Path

import pytest

from phi3_assets.core.errors import DamagedArtefact, TransientError, UserError
from phi3_assets.worker.__main__ import run_under_dagster
from phi3_assets.worker.running import help_with_step, is_transient
from phi3_assets.worker.step_file import StepFile, StepInput
from phi3_assets_tests.conftest import raw_dataset_call, write_rows


def chained(outer, inner):
    outer.__cause__ = inner
    return outer


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("The hub failed on acme/phi3: 503"),
        TimeoutError(),
        MemoryError(),
        TransientError("a neighbour held the memory"),
        OutOfMemoryError("CUDA out of memory"),
        chained(RuntimeError("Olive's pass failed"), ConnectionError("reset by peer")),
    ],
)
def test_may_pass(error):
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        UserError("no such column"),
        DamagedArtefact("bytes differ"),
        KeyError("a defect"),
        # Whoever says it in words for the user has judged it: this model does not fit.
        chained(UserError("The GPU's memory is full"), OutOfMemoryError("CUDA out of memory")),
        None,
    ],
)
def test_stays_as_it_is(error):
    assert not is_transient(error)


class Told:
    """The orchestrator's end of Pipes: what it was told."""

    def __init__(self) -> None:
        self.messages: list[dict[str, object]] = []

    def report_custom_message(self, message: dict[str, object]) -> None:
        self.messages.append(message)


@pytest.fixture
def step_file(store, tmp_path) -> StepFile:
    call, inputs = raw_dataset_call(store)
    return StepFile(
        call=call,
        inputs={name: StepInput(str(files.path), files.digest, None) for name, files in inputs.items()},
        output=str(tmp_path / "output"),
        work=str(tmp_path / "work"),
        cache=str(tmp_path / "cache"),
        execution="test",
    )


def test_the_reason_is_told_where_the_log_cannot_be_written(step_file, monkeypatch) -> None:
    """On a full disk the traceback could not be printed, and the reason went with it."""
    told = Told()
    write_rows(Path(step_file.inputs["datasets"].path) / "more.csv")
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(full, write_through=True))
        assert run_under_dagster(step_file, told) == 1
    (message,) = told.messages
    assert "changed while the step was starting" in message["failed"]


def test_a_helper_verifies_and_seals_nothing(step_file, tmp_path) -> None:
    """Only the first of several processes leaves an artefact; the others read inputs just as carefully."""
    notes: list[str] = []
    help_with_step(step_file, notes.append)
    assert any((tmp_path / "output").iterdir())
    assert not (tmp_path / "output" / "manifest.json").exists()
    write_rows(Path(step_file.inputs["datasets"].path) / "more.csv")
    with pytest.raises(UserError, match="changed while the step was starting"):
        help_with_step(step_file, notes.append)
