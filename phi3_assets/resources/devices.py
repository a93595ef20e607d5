"""One step at a time on a device: which devices this machine has, and holding them.

Not a pool of Dagster's: its slots are rows of a database, and a run that was killed keeps its row until somebody
notices. A kernel lock goes with its holder.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from phi3_assets.core.locks import Holder, Lock, try_lock, wait_for

CPU = "cpu"
VISIBLE = "CUDA_VISIBLE_DEVICES"
# What NVIDIA's driver says of each GPU that this machine, or container, was given.
GPUS = Path("/proc/driver/nvidia/gpus")


def devices(env: Mapping[str, str]) -> list[str]:
    """The GPUs that CUDA will show under this environment, as it names them; without any, the CPU as one device.

    The driver is asked through its files: torch takes seconds to import, and the orchestrator never does.
    """
    present = [str(number) for number in range(len(list(GPUS.iterdir())))] if GPUS.is_dir() else []
    if not present:
        return [CPU]
    if VISIBLE in env:
        # As CUDA reads it: up to the first that is no device.
        present = []
        for name in (part.strip() for part in env[VISIBLE].split(",")):
            if name in ("", "-1") or name in present:
                break
            present.append(name)
    return present or [CPU]


@contextmanager
def hold_devices(
    home: Path, env: Mapping[str, str], count: int, holder: Holder, waiting: Callable[[str], None]
) -> Iterator[list[str]]:
    """Hold `count` devices, any that are free, after waiting for them if need be; all of them where there are fewer.

    Args:
        home: PHI3_HOME.
        env: The environment the step will run in.
        count: How many it wants.
        holder: Who will hold them.
        waiting: Called with who is waited for, once for each.

    Yields:
        Their names for CUDA_VISIBLE_DEVICES, or `[CPU]`.
    """
    present = devices(env)
    wanted = min(count, len(present))
    locks: dict[str, list[Lock]] = {}

    def attempt() -> list[str] | None:
        for name in present:
            if len(locks) == wanted:
                break
            if (taken := _try_all(_files(home, name), holder)) is not None:
                locks[name] = taken
        if len(locks) == wanted:
            return list(locks)
        _release(locks)  # or two that want several would wait for one another
        return None

    try:
        yield wait_for(attempt, lambda: [file for name in present for file in _files(home, name)], waiting)
    finally:
        _release(locks)


def _files(home: Path, device: str) -> list[Path]:
    """The lock files of a device.

    Two homes of one machine share its GPUs, and two containers on one home do not share a /tmp: a GPU has a lock in
    both places. A CPU is shared by everybody anyway, so there one home keeps out of its own way only.
    """
    name = f"{device.replace('/', '_')}.lock"
    own = home / "work" / "devices" / name
    if device == CPU:
        return [own]
    machines = Path(tempfile.gettempdir()) / "phi3-devices"
    if not machines.exists():
        machines.mkdir(exist_ok=True)
        machines.chmod(0o1777)  # as /tmp itself: everybody's, whatever our umask is
    return [machines / name, own]


def _try_all(files: list[Path], holder: Holder) -> list[Lock] | None:
    taken: list[Lock] = []
    for file in files:
        lock = try_lock(file, holder)
        if lock is None:
            for other in taken:
                other.release()
            return None
        taken.append(lock)
    return taken


def _release(locks: dict[str, list[Lock]]) -> None:
    for taken in locks.values():
        for lock in taken:
            lock.release()
    locks.clear()
