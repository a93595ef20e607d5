"""Processes that somebody else started meet, go on from one checkpoint, and learn what ended another of them.

No disk in common is needed. With NCCL, on GPUs, one that failed is noticed by the others when their collective times
out, or when whoever started them ends them all, as AzureML does; with gloo at once.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.sealing import damage
from phi3_assets.training.ranks import Rank

MEET_S = 900.0
"""How long the first waits for the last: nodes of one job are started together, but each pulls its image and data."""
COLLECTIVE_S = 900.0
"""How long one waits for the others in a training, before it takes them for lost. More than a machine that may be taken
away waits to be spared, and than the first process needs for its dry run."""
TOLD_S = 5.0
_PIECE_BYTES = 64 << 20
_FAILURE = "phi3_assets/failure"
_LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")


class Group:
    """Those that train together, once they have met."""

    def __init__(self, rank: Rank, store: Any, device: Any) -> None:
        """Take what `joined` made."""
        import torch

        self.rank, self._store, self._device = rank, store, device
        nodes: list[str] = [""] * rank.of
        torch.distributed.all_gather_object(nodes, rank.node)
        self.processes_here = nodes.count(rank.node)

    def tell_failure(self, error: Exception) -> None:
        """Let the others know what ended this one; the first to tell is the cause."""
        kind = "user" if isinstance(error, UserError) else "transient" if isinstance(error, TransientError) else ""
        text = str(error) if kind else f"{type(error).__name__}: {error}"
        value = {"kind": kind, "rank": self.rank.number, "text": f"{self.rank}: {text}"}
        _within(TOLD_S, lambda: self._store.compare_set(_FAILURE, "", json.dumps(value)))

    def failure(self) -> Exception | None:
        """What ended the first that failed; None: it did not tell, so it was killed, or it is the one to ask."""

        def ask() -> bytes:
            self._store.wait([_FAILURE], timedelta(seconds=TOLD_S))
            return bytes(self._store.get(_FAILURE))

        # A wait that ends in time ends a little after it.
        if (told := _within(2 * TOLD_S, ask)) is None:
            return None
        value = json.loads(told)
        kinds = {"user": UserError, "transient": TransientError, "": RuntimeError}
        return kinds[value["kind"]](value["text"])

    def share_checkpoint(self, directory: Path, step: int | None) -> int | None:
        """Make the first one's checkpoint that of all, so that no two can go on from different steps.

        There need be no disk in common, and no other copy: an adapter's checkpoint is small.

        Args:
            directory: Where this process's trainer keeps its checkpoints; all but the first one's are replaced.
            step: Of the checkpoint to go on from, as the first one found it; of the others it is not asked.

        Returns:
            The step that all go on from; None: the start.

        Raises:
            TransientError: What arrived is not what was sent.
        """
        import torch

        found: list[Any] = [None]
        if self.rank.leads and step is not None:
            folder = directory / f"checkpoint-{step}"
            found = [(step, {path.name: path.stat().st_size for path in sorted(folder.iterdir())})]
        torch.distributed.broadcast_object_list(found, 0)
        if not self.rank.leads:
            shutil.rmtree(directory, ignore_errors=True)
        if found[0] is None:
            return None
        step, sizes = found[0]
        folder = directory / f"checkpoint-{step}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, size in sizes.items():
            self._share_file(folder / name, size)
        if wrong := damage(folder, folder.name):
            raise TransientError(f"{self.rank} got the checkpoint of step {step} damaged: {wrong}.")
        return int(step)

    def _share_file(self, path: Path, size: int) -> None:
        import torch

        sizes = [min(_PIECE_BYTES, size - at) for at in range(0, size, _PIECE_BYTES)]
        if self.rank.leads:
            with path.open("rb") as file:
                for piece in sizes:
                    content = torch.frombuffer(bytearray(file.read(piece)), dtype=torch.uint8)
                    torch.distributed.broadcast(content.to(self._device), 0)
            return
        with path.open("wb") as file:
            for piece in sizes:
                content = torch.empty(piece, dtype=torch.uint8, device=self._device)
                torch.distributed.broadcast(content, 0)
                file.write(content.cpu().numpy().tobytes())


def _within(seconds: float, ask: Callable[[], bytes]) -> bytes | None:
    """What the store says; None: it is gone, or does not answer.

    Asked in a thread, because a store whose machine is gone is waited for without end, whatever its timeout.
    """
    answers: list[bytes] = []

    def wait() -> None:
        try:
            answers.append(ask())
        except Exception as error:  # torch's have no public class in common
            if type(error).__name__ not in _LOST:
                raise

    asking = threading.Thread(target=wait, daemon=True)
    asking.start()
    asking.join(seconds)
    return answers[0] if answers else None


@contextmanager
def joined(rank: Rank) -> Iterator[Group]:
    """Meet the others, and part from them once all are done.

    Raises:
        UserError: This or another one raised it, or a rank of this machine has no GPU.
        TransientError: Another one did not come, or was lost: its machine was taken away, or the kernel killed it.
        RuntimeError: Another one failed otherwise.
    """
    import torch

    on_gpu = torch.cuda.is_available()
    if on_gpu and rank.local >= torch.cuda.device_count():
        raise UserError(
            f"{rank} wants GPU {rank.local} of its machine, which has {torch.cuda.device_count()}. Let as many "
            "processes train per node as it has GPUs."
        )
    device = torch.device("cuda", rank.local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    try:
        group = _meet(rank, device)
    except Exception as error:
        if not _is_of_lost_peer(error):
            raise
        raise TransientError(
            f"{rank} did not meet the others at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} within "
            f"{MEET_S:.0f} s: one of them did not start, or ended before ({error}). The log of each rank says more."
        ) from error
    _share_cores(group.processes_here)
    try:
        yield group
        # Nobody ends before the first one has published: a node whose process ended might be given back.
        torch.distributed.barrier()
    except Exception as error:
        raise _cause(error, group) from error
    # After an error the process ends, and with it what a collective may still hang in.
    torch.distributed.destroy_process_group()


def _meet(rank: Rank, device: Any) -> Group:
    import torch
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(rendezvous("env://", rank.number, rank.of, timeout=timedelta(seconds=MEET_S)))
    torch.distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=store,
        rank=rank.number,
        world_size=rank.of,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )
    return Group(rank, store, device)


def _share_cores(processes_here: int) -> None:
    """Accelerate reads how many share this machine from where torchrun writes it, and AzureML does not."""
    import torch

    os.environ["LOCAL_WORLD_SIZE"] = str(processes_here)
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, torch.get_num_threads() // processes_here))


def _cause(error: Exception, group: Group) -> Exception:
    """What ended all: this error, or what another tells, of which this one follows."""
    if not _is_of_lost_peer(error):
        group.tell_failure(error)
        return error
    return group.failure() or TransientError(
        f"{group.rank} lost another that trains with it, which told no error: its machine was taken away, the kernel "
        f"killed it for want of memory, or the network failed ({error}). The log of each rank says more."
    )


def _is_of_lost_peer(error: Exception) -> bool:
    """Whether a collective failed; gloo raises plain RuntimeErrors, which begin with where in its sources."""
    return type(error).__name__ in _LOST or (isinstance(error, RuntimeError) and "/gloo/" in str(error))
