"""What a step will need of this machine, told before it begins, refused where there is not as much, then measured."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from phi3_assets.core import memory
from phi3_assets.core.errors import UserError
from phi3_assets.core.measured import Metrics
from phi3_assets.core.memory import gib

TOLERANCE = 1.25
"""Largest factor between a forecast of memory and what is then measured."""


@dataclass(frozen=True, kw_only=True)
class MemoryMetrics(Metrics):
    """Of a step whose need is forecast; None: an artefact of an earlier version, or nothing had to be done.

    Attributes:
        estimated_memory_bytes: Memory that was reckoned, with what Python and the libraries hold.
        peak_memory_bytes: Most that this process held; None also where the operating system does not tell.
    """

    estimated_memory_bytes: int | None = None
    peak_memory_bytes: int | None = None


class Forecast:
    """Of one step, on the host."""

    def __init__(
        self,
        doing: str,
        memory_bytes: int,
        disk_bytes: int,
        way_out: str = "Run the step on a machine with more memory.",
    ) -> None:
        """The libraries must be loaded already, for they count.

        Args:
            doing: What the step does, to begin a sentence with, such as "Merging".
            memory_bytes: Beside what this process holds now.
            disk_bytes: For what it writes, in its work directory too.
            way_out: What can be done where it does not fit, as a sentence.
        """
        self._doing, self._disk, self._way_out = doing, disk_bytes, way_out
        memory.forget_peak_memory()  # what was freed before does not count
        self._held = memory.held_bytes()
        self.memory = self._held + memory_bytes
        """Bytes in all."""
        self._peak = 0

    def begin(self, folder: Path, log: Callable[[str], None]) -> None:
        """Tell what will be needed, and refuse what this machine does not have.

        Args:
            folder: Where it will write.
            log: Takes a line for the user.

        Raises:
            UserError: Names the numbers and the way out.
        """
        disk = f" and {gib(self._disk)} of disk" if self._disk else ""
        log(f"Estimate: {gib(self.memory)} of memory{disk}")
        available = memory.available_bytes() + self._held
        if self.memory > available:
            raise UserError(
                f"{self._doing} needs about {gib(self.memory)} of memory, and of this machine's "
                f"{gib(memory.total_bytes())} {gib(available)} are available. {self._way_out}"
            )
        free = shutil.disk_usage(folder).free
        if self._disk > free:
            raise UserError(
                f"{self._doing} needs about {gib(self._disk)} of disk, and {folder} has {gib(free)} free. Free some "
                "space, or point PHI3_HOME at a larger disk."
            )

    def note_peak(self) -> None:
        """Take in the peak so far; to be called before anybody else forgets it."""
        self._peak = max(self._peak, memory.peak_memory_bytes() or 0)

    def metrics(self) -> MemoryMetrics:
        """What was reckoned and what it took until now."""
        self.note_peak()
        return MemoryMetrics(estimated_memory_bytes=self.memory, peak_memory_bytes=self._peak or None)
