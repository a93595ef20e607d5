"""Trying a step again when its surroundings failed it: the hub was away, a neighbour held the memory.

With Dagster's `RetryRequested` and not its `RetryPolicy`: an op with a policy is tried again when the user cancels it,
too (op_execution_error_boundary, "respect retry policy when interrupts occur"), and when the code has a defect. The
wait is our own, because Dagster's, between two tries, is deaf to signals until it is over.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from phi3_assets.resources.execution import Context

# As long as it takes a service to be started anew, or a neighbour's job to end.
PAUSES_S = (15.0, 60.0, 240.0)


@contextmanager
def retried(context: Context) -> Iterator[None]:
    """Have Dagster try the op again, a few times, when a `dagster.Failure` allows it; says why each time.

    Raises:
        dagster.RetryRequested: After a pause.
        dagster.Failure: It does not allow it, or it was tried often enough.
    """
    try:
        yield
    except dg.Failure as failure:
        if not failure.allow_retries or context.retry_number >= len(PAUSES_S):
            raise
        pause_s = PAUSES_S[context.retry_number]
        context.log.warning(
            f"{failure.description}\nThis may pass: tried again in {pause_s:g} s, "
            f"time {context.retry_number + 1} of {len(PAUSES_S)}."
        )
        time.sleep(pause_s)
        raise dg.RetryRequested(max_retries=len(PAUSES_S)) from failure
