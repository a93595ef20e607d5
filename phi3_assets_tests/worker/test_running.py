"""Which failures of a step may pass by themselves."""

import pytest

from phi3_assets.core.errors import DamagedArtefact, TransientError, UserError
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


def test_a_helper_verifies_and_seals_nothing(store, tmp_path) -> None:
    """Only the first of several processes leaves an artefact; the others read inputs just as carefully."""
    call, inputs = raw_dataset_call(store)
    step_file = StepFile(
        call=call,
        inputs={name: StepInput(str(files.path), files.digest, None) for name, files in inputs.items()},
        output=str(tmp_path / "output"),
        work=str(tmp_path / "work"),
        cache=str(tmp_path / "cache"),
        execution="test",
    )
    notes: list[str] = []
    help_with_step(step_file, notes.append)
    assert any((tmp_path / "output").iterdir())
    assert not (tmp_path / "output" / "manifest.json").exists()
    write_rows(inputs["datasets"].path / "more.csv")
    with pytest.raises(UserError, match="changed while the step was starting"):
        help_with_step(step_file, notes.append)
