"""One of several processes that whoever started them wants to train together, also on several machines.

AzureML and torchrun start the same command once per device and name its place among all in the environment: RANK,
LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, and AzureML also NODE_RANK. Here a process reads its place, meets the
others, learns of their errors, and gets the checkpoint that all go on from. Processes that we start ourselves, on one
machine, stand in `together`.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from phi3_assets.core.errors import TransientError, UserError
from phi3_assets.core.sealing import damage

MEET_S = 900.0
"""How long the first waits for the last: nodes of one job are started together, but each pulls its image and data."""
COLLECTIVE_S = 900.0
"""How long one waits for the others in a training, before it takes them for lost. More than a machine that may be taken
away waits to be spared, and than the first process needs for its dry run."""
TOLD_S = 5.0
_PIECE_BYTES = 64 << 20
_FAILURE = "phi3_assets/failure"
_LOST = ("DistBackendError", "DistNetworkError", "DistStoreError")


@dataclass(frozen=True)
class Rank:
    """A process's place among those that train together.

    Attributes:
        number: From 0; the first one leads: it publishes, reports, and keeps the checkpoints.
        of: How many there are.
        local: Number among those of this machine, and of its device.
        node: The machine's name or number.
    """

    number: int
    of: int
    local: int
    node: str

    @property
    def leads(self) -> bool:
        """Whether this is the first one."""
        return self.number == 0

    def __str__(self) -> str:
        return f"rank {self.number} of {self.of} (node {self.node})"


def given_rank(environment: Mapping[str, str]) -> Rank | None:
    """The place that this process was started in; None: it was started alone.

    Raises:
        UserError: WORLD_SIZE asks for several processes, and what else they need is missing or no number.
    """
    if environment.get("WORLD_SIZE", "1") == "1":
        return None
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not environment.get(name):
            raise UserError(
                f"WORLD_SIZE is {environment['WORLD_SIZE']}, so this is one of several processes that train together, "
                f"but {name} is not set. Start them with torchrun or as AzureML's distribution PyTorch, or unset "
                "WORLD_SIZE."
            )
    number, of, local = (_number(environment, name) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    # torchrun says GROUP_RANK.
    node = environment.get("NODE_RANK") or environment.get("GROUP_RANK") or os.uname().nodename
    return Rank(number, of, local, node)


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except (KeyError, ValueError):
        raise UserError(
            f"{name} is {environment.get(name)!r}, but WORLD_SIZE is {environment['WORLD_SIZE']}: each of several "
            "processes that train together needs its number there. Start them with torchrun or as AzureML's "
            "distribution PyTorch, or unset WORLD_SIZE."
        ) from None


def cut_batch(params: Mapping[str, Any], of: int) -> dict[str, Any]:
    """Cut the rows of an optimiser step for `of` processes, instead of for the recipe's: the same training.

    Args:
        params: Recipe fields of the step, settings and train_batch_rows among them.
        of: How many processes train together.

    Returns:
        The same fields with another per_device_train_batch_size, never a larger one, gradient_accumulation_steps and
        processes.

    Raises:
        UserError: The rows of a step are no multiple of the processes.
    """
    rows, wanted = params["train_batch_rows"], params["per_device_train_batch_size"]
    if rows % of:
        raise UserError(
            f"An optimiser step has {rows} rows (per_device_train_batch_size x gradient_accumulation_steps x "
            f"processes), which {of} processes on all nodes cannot share evenly. Set gradient_accumulation_steps so "
            f"that they are a multiple of {of}, or let fewer processes train."
        )
    share = rows // of
    size = max(size for size in range(1, min(wanted, share) + 1) if share % size == 0)
    return {
        **params,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": share // size,
        "processes": of,
    }


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
        self._store.compare_set(_FAILURE, "", json.dumps(value))

    def failure(self) -> Exception | None:
        """What ended the first that failed; None: it did not tell, so it was killed, or it is the one to ask."""
        try:
            self._store.wait([_FAILURE], timedelta(seconds=TOLD_S))
            value = json.loads(self._store.get(_FAILURE))
        except Exception as error:  # of torch's: it has no common class for a store that is gone or does not answer
            if type(error).__name__ not in _LOST:
                raise
            return None
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


@contextmanager
def joined(rank: Rank) -> Iterator[Group]:
    """Meet the others, and part from them once all are done.

    Raises:
        UserError: This or another one raised it, or a rank of this machine has no GPU.
        TransientError: Another one was lost: its machine was taken away, or the kernel killed it.
        RuntimeError: Another one failed otherwise.
    """
    import torch
    from torch.distributed.rendezvous import rendezvous

    on_gpu = torch.cuda.is_available()
    if on_gpu and rank.local >= torch.cuda.device_count():
        raise UserError(
            f"{rank} wants GPU {rank.local} of its machine, which has {torch.cuda.device_count()}. Let as many "
            "processes train per node as it has GPUs."
        )
    device = torch.device("cuda", rank.local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    store, _, _ = next(rendezvous("env://", rank.number, rank.of, timeout=timedelta(seconds=MEET_S)))
    torch.distributed.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=store,
        rank=rank.number,
        world_size=rank.of,
        timeout=timedelta(seconds=COLLECTIVE_S),
    )
    group = Group(rank, store, device)
    _share_cores(group.processes_here)
    try:
        yield group
        # Nobody ends before the first one has published: a node whose process ended might be given back.
        torch.distributed.barrier()
    except Exception as error:
        raise _cause(error, group) from error
    # After an error the process ends, and with it what a collective may still hang in.
    torch.distributed.destroy_process_group()


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
