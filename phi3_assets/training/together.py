"""Several processes of one machine that train one adapter: torch's distributed data parallel, one process per device.

This process supervises and does not train, so that whatever ends one of them is told, and ends them all. They belong to
its process group, which whoever started it kills as a whole. When it dies alone the kernel interrupts them, so that a
checkpoint is written; and what had not ended a while later, because a lock died with it, ends itself.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from phi3_assets.core import memory
from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.training.checkpoints import StopRequest
from phi3_assets.training.fit import Callbacks, Fitted, Job, fit

_POLL_S = 0.2
# A process that lost its peers ends by itself; one that hangs in a collective is killed after this.
_GRACE_S = 5.0
_SECURED_S = 60.0
# A process without a supervisor has this long to write its last checkpoint.
_ALONE_S = 60.0


def fit_together(job: Job, callbacks: Callbacks, processes: int) -> Fitted:
    """Train an adapter with `processes` processes; each sees every so manyth batch.

    Raises:
        UserError: What any of them raised, or fewer GPUs than processes.
        TransientError: Memory that others held was missing to one of them, or it was killed for want of memory.
        RuntimeError: One of them failed otherwise; with its traceback.
    """
    import torch
    from torch import multiprocessing
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    if torch.cuda.is_available() and processes > torch.cuda.device_count():
        raise UserError(
            f"processes: {processes} asked for, and this machine has {torch.cuda.device_count()} GPUs. Set it to that, "
            "and raise gradient_accumulation_steps by the factor it was lowered, for the same training."
        )
    spawn = multiprocessing.get_context("spawn")
    messages = spawn.SimpleQueue()
    notice = _Notice(announced_event=spawn.Event(), secured_event=spawn.Event())
    stop = StopRequest()
    # They get the same signal and write a checkpoint first; this process outlives them.
    stop.arm()
    result: list[Fitted] = []
    failure: list[BaseException] = []

    def take_messages() -> None:
        while not messages.empty():
            kind, value = messages.get()
            if kind == "fitted":
                result.append(value)
            elif kind == "failed":
                failure.append(UserError(value))
            elif kind == "failed for now":
                failure.append(TransientError(value))
            elif kind == "progress":
                callbacks.progress(**value)
            elif kind == "checkpoint written":
                callbacks.interruption.checkpoint_written()
                notice.secured_event.set()
            else:
                getattr(callbacks, kind)(value)

    ranks = start_processes(  # type: ignore[no-untyped-call]
        _rank,
        args=(replace(job, processes_here=processes), processes, _free_port(), messages, notice),
        nprocs=processes,
        join=False,
        start_method="spawn",
    )
    forwarded = False
    try:
        while not ranks.join(_POLL_S, _GRACE_S):
            take_messages()
            notice.pass_on(callbacks.interruption.announced())
            if stop.number is not None and not forwarded:
                forwarded = True
                for process in ranks.processes:
                    if process.is_alive():
                        os.kill(process.pid, stop.number)
    except ProcessExitedException as error:
        failure.append(_exited(error, job.params))
    except ProcessRaisedException as error:
        failure.append(RuntimeError(str(error)))
    finally:
        for process in ranks.processes:
            if process.is_alive():
                process.kill()
    take_messages()
    stop.deliver()
    # The user's error is the cause, or want of memory; that others lost their peer follows from it.
    for kind in (UserError, TransientError, BaseException):
        for cause in failure:
            if isinstance(cause, kind):
                raise cause
    (fitted,) = result
    return fitted


@dataclass(frozen=True)
class _Notice:
    """What the supervisor is told of an interruption, in the processes that train.

    Attributes:
        announced_event: Set while the machine is about to be taken away.
        secured_event: Set once the supervisor has secured the checkpoint that it was told of.
        tell_supervisor: Tells it of a checkpoint; None where another process does.
    """

    announced_event: Any
    secured_event: Any
    tell_supervisor: Callable[[], None] | None = None

    def pass_on(self, announced: bool) -> None:
        """Called by the supervisor, again and again."""
        if announced != self.announced_event.is_set():
            (self.announced_event.set if announced else self.announced_event.clear)()

    def announced(self) -> bool:
        """See `Interruption`."""
        return bool(self.announced_event.is_set())

    def checkpoint_written(self) -> None:
        """See `Interruption`."""
        if self.tell_supervisor is not None:
            self.secured_event.clear()
            self.tell_supervisor()
            deadline = time.monotonic() + _SECURED_S
            while not self.secured_event.wait(_POLL_S) and time.monotonic() < deadline and _supervisor().is_alive():
                pass


def _rank(rank: int, job: Job, processes: int, port: int, messages: Any, notice: _Notice) -> None:
    """Runs in each process."""
    import torch

    threading.Thread(target=_end_after_supervisor, daemon=True).start()
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))

    def tell(kind: str, value: Any) -> None:
        # Without a supervisor the kernel's interrupt is on its way, and before it ends us a checkpoint is written.
        with suppress(BrokenPipeError):
            messages.put((kind, value))

    try:
        if rank:
            silent = Callbacks(_nowhere, _nowhere, _nowhere, notice)
            fit(replace(job, scratch=job.scratch / f"rank{rank}"), silent, leads=False)
            return
        callbacks = Callbacks(
            log=lambda line: tell("log", line),
            note=lambda line: tell("note", line),
            progress=lambda **numbers: tell("progress", numbers),
            interruption=replace(notice, tell_supervisor=lambda: tell("checkpoint written", None)),
        )
        fitted = fit(job, callbacks)
    except (UserError, TransientError) as error:
        messages.put(("failed" if isinstance(error, UserError) else "failed for now", str(error)))
        raise SystemExit(1) from None
    # What they were cannot be sent.
    fitted.training.progress, fitted.training.note = _nowhere, _nowhere
    messages.put(("fitted", fitted))


def _supervisor() -> Any:
    """The process that started this one."""
    from multiprocessing import parent_process

    return parent_process()


def _end_after_supervisor() -> None:
    """The kernel's interrupt reaches nobody who waits for a lock that the supervisor held when it was killed."""
    _supervisor().join()
    time.sleep(_ALONE_S)
    os._exit(1)


def _nowhere(*_: str, **numbers: float) -> None:
    """What the first process tells, the others would only repeat."""


def _exited(error: Any, params: dict[str, Any]) -> BaseException:
    if getattr(error, "signal_name", None) == signal.SIGKILL.name:
        return TransientError(
            f"Process {error.error_index} of those that train together was killed (SIGKILL), which is what the kernel "
            f"does when memory runs out: of {memory.gib(memory.total_bytes())} {memory.gib(memory.available_bytes())} "
            f"are available now. {memory.what_to_lower(params)}"
        )
    return RuntimeError(f"A process of those that train together ended: {error}.")


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])
