"""One of several processes that whoever started them wants to train together, also on several machines.

AzureML and torchrun start one command once per device and name its place among all in the environment: RANK,
LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT, and AzureML also NODE_RANK. Here a process reads its place, and the
rows of a step are cut for as many as there are; how they meet stands in `group`. Processes that we start, on one
machine, stand in `together`.
"""

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from phi3_assets.core.errors import UserError


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


def stand_alone(environment: MutableMapping[str, str]) -> None:
    """Take away what says that this process is the only one of its kind; accelerate would make a group of one of it."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        environment.pop(name, None)


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
