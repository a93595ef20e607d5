"""How much memory there is, how much of it this process holds, and what to lower when it runs out."""

import contextlib
import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi3_assets.core.cgroups import groups

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
_FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
# A limit above this is how version 1 of cgroups writes that there is none.
_NO_LIMIT = 2**60

# psutil is imported where it is used: processes that measure how little they need import this module too.


def total_bytes() -> int:
    """Memory of this machine, or of the container if that has less."""
    import psutil

    return min([psutil.virtual_memory().total, *(limit for limit, _ in _cgroup_limits())])


def available_bytes() -> int:
    """Memory that this process can still get without swapping, within the limits of its container."""
    import psutil

    return min([psutil.virtual_memory().available, *(limit - used for limit, used in _cgroup_limits())])


def _cgroup_limits() -> list[tuple[int, int]]:
    """Limit and use, in bytes, of this process's control groups that have a limit; pages of files are not use."""
    found = (_limit_and_use(folder, *_FILES[version]) for version, folder in groups("memory"))
    return [pair for pair in found if pair is not None]


def _limit_and_use(folder: Path, limit_name: str, use_name: str, cache_key: str) -> tuple[int, int] | None:
    try:
        limit = (folder / limit_name).read_text(encoding="ascii").strip()
        if limit == "max" or int(limit) > _NO_LIMIT:
            return None
        use = int((folder / use_name).read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return None
    return int(limit), use - int(stat.get(cache_key, 0))


def forget_peak_memory() -> None:
    """Let `peak_memory_bytes` start from now; a no-op where the kernel cannot.

    glibc keeps freed blocks (200 MB after scoring a 135M model), which would count for what comes next; they are given
    back first.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    with contextlib.suppress(OSError):  # not Linux, or a container that hides it: the peak is then not told at all
        CLEAR_REFS.write_text("5", encoding="ascii")  # 5 resets VmHWM: proc(5)


def peak_memory_bytes() -> int | None:
    """Largest resident set of this process since `forget_peak_memory`, in bytes."""
    if not os.access(CLEAR_REFS, os.W_OK):
        return None
    # Not getrusage: it counts the parent's size at the time of the fork as the child's own.
    return int(STATUS.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) * 1024


def held_bytes() -> int:
    """Resident set of this process now, in bytes."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def gib(size: float) -> str:
    """A size for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def what_to_lower(params: Mapping[str, Any]) -> str:
    """What a step with these recipe fields can do with less memory, as a sentence with values to set."""
    if params.get("int4_recovery_steps"):
        return "Set int4_recovery_steps: 0, or run the step on a machine with more memory."
    if "per_device_train_batch_size" not in params:
        return "Close other programs, or run the step on a machine with more memory."
    ways = []
    rows, accumulated = params["per_device_train_batch_size"], params["gradient_accumulation_steps"]
    if rows > 1:
        ways.append(
            f"per_device_train_batch_size: {rows // 2} with gradient_accumulation_steps: {accumulated * 2} "
            "(the same training, slower)"
            if rows % 2 == 0
            else f"per_device_train_batch_size: 1 with gradient_accumulation_steps: {accumulated * rows} "
            "(the same training, slower)"
        )
    if not params["gradient_checkpointing"]:
        ways.append("gradient_checkpointing: true (the same training, a third slower)")
    ways.append("a lower max_seq_len")
    if params["method"] != "qlora":
        ways.append("method: qlora (a 4-bit base model)")
    return f"Set {', or '.join(ways)}."
