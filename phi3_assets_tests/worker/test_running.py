"""Which failures of a step may pass by themselves."""

import pytest

from phi3_assets.core.errors import DamagedArtefact, TransientError, UserError
from phi3_assets.worker.running import is_transient


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
