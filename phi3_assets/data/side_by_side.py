"""Work on several files at once, in processes: handling rows is Python, which one process does on one core."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from typing import TypeVar

from phi3_assets.data.arrow import leave_pandas_out

T = TypeVar("T")
# Below this, about a second of work, starting processes would cost more than it saves.
WORTHWHILE_BYTES = 8_000_000


def side_by_side(work: Callable[..., T], calls: Sequence[tuple[object, ...]], input_bytes: int) -> Iterator[T]:
    """Results of `work(*call)` for each call, in their order.

    Args:
        work: A module's function.
        calls: Its arguments, which can be pickled.
        input_bytes: Size of what is read in all; a little is done in this process.
    """
    cores = os.cpu_count() or 1
    processes = min(len(calls), cores)
    if processes < 2 or input_bytes < WORTHWHILE_BYTES:
        yield from (work(*call) for call in calls)
        return
    from concurrent.futures import ProcessPoolExecutor  # which takes as long to import as a small file to read

    # Spawned: a fork would copy threads' locks in whatever state they are.
    context = multiprocessing.get_context("spawn")
    threads = str(cores // processes)
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_begin, initargs=(threads,)) as pool:
        running = [pool.submit(work, *call) for call in calls]
        for future in running:
            yield future.result()


def _begin(tokenizer_threads: str) -> None:
    """First in each process: share the cores, and end when the parent is killed instead of waiting for more work."""
    leave_pandas_out()
    os.environ["RAYON_NUM_THREADS"] = tokenizer_threads
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
